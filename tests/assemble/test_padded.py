"""Molecules side by side in one batch move as each would alone."""

import pytest
import torch

from timewarp import units
from timewarp.assemble.data import loader
from timewarp.assemble.padded import Padded
from timewarp.energy import Potential
from timewarp.kernel import run
from timewarp.mcmc.dynamics import Langevin
from timewarp.state import State


def test_each_molecule_moves_on_its_own_potential():
    molecules = [loader(name)() for name in ("AA", "GG", "ACE-GLY-NME")]
    padded = Padded.of(molecules, 2)
    kernel = Langevin(padded, padded.masses(), timestep=0.001, steps=5, centred=True)
    rng = torch.Generator().manual_seed(0)
    state = kernel.init(State.at(padded.start(), 3, rng))
    for state, info in run(kernel, state, 4, rng):  # noqa: B007, B020
        pass
    assert info["accepted"].all()
    for number, molecule in enumerate(molecules):
        own, n = slice(2 * number, 2 * number + 2), molecule.atoms
        energy, slope = Potential(molecule).kilojoules(state.positions[own, :n], True)
        assert state.energy[own].numpy() == pytest.approx((energy / units.kT(310.0)).numpy(), abs=1e-3)
        assert (state.gradient[own, :n] - slope).abs().max() < 0.1
        assert (state.positions[own, :n] - molecule.reference.float()).abs().amax((1, 2)).min() > 0.001
        assert (state.positions[own, n:] == 0).all()
        assert (state.velocities[own, n:] == 0).all()
    assert not torch.equal(state.positions[0], state.positions[1])
    assert kernel.freedoms().tolist() == [3 * m.atoms for m in molecules for _ in range(2)]
