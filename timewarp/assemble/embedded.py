"""The flow's kernel for a peptide inside somebody's own OpenMM Simulation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from timewarp.assemble.adapt import chart_of
from timewarp.assemble.energy import energy_of
from timewarp.assemble.flows import bound, load_flow
from timewarp.assemble.kernels import flow_kernel
from timewarp.assemble.peptide import Peptide
from timewarp.flow.pose import posed
from timewarp.resources import checkpoint_path
from timewarp.settings import SampleSettings
from timewarp.state import Positions
from timewarp.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from timewarp.md.energy import OpenMMEnergy
    from timewarp.md.moves import Bound
    from timewarp.md.target import Target

WIDTH = 64  # proposals drawn at once
SAME = 1e-2  # kJ/mol
REFERENCE = "reference"


def embed(target: Target, checkpoint: str | Path | None = None, arrays: Mapping[str, Tensor] | None = None) -> Bound:
    """The flow's kernel for `target`, whose energy is the System's own, compared with OpenMM's here.

    The pose is not proposed: the moved molecule keeps its centre of mass and the directions of three of its atoms.
    Both are functions of the shape and of the old pose alone, under which the volume of the shapes is the same, so
    that the moves stay exact for every potential that does not see the pose.

    Args:
        checkpoint: the name of one that came with the package, or a path; the default one if not given.
        arrays: of an earlier kernel, to have the same one again.

    Raises:
        InputError: if the potential sees where the molecule is, or how it is turned.
        EnergyMismatch: if the batched potential differs from OpenMM's.
    """
    from timewarp.md.energy import OpenMMEnergy
    from timewarp.md.moves import Bound
    from timewarp.md.system import Prepared

    path = checkpoint_path(checkpoint if checkpoint is not None else SampleSettings.checkpoint)
    weights = Checkpoint.load(path.with_suffix(""))
    reference = _geometry(target) if arrays is None else arrays[REFERENCE].numpy()
    # an adapted checkpoint names its peptide; that the potential is the same says more
    name = weights.card.get("adaptation", {}).get("peptide", "")
    prepared = Prepared(target.topology, target.system, reference, (), name)
    energy, molecule, notices = energy_of(prepared, target.temperature)
    if isinstance(energy, OpenMMEnergy):
        energy = OpenMMEnergy(target.system, target.temperature, target.platform)
        _require_poseless(energy, reference)
    if arrays is None:
        whitening = chart_of(weights, prepared, molecule, target.temperature)
    else:
        whitening = {k: v for k, v in arrays.items() if k != REFERENCE}
    peptide = Peptide.of(molecule, target.temperature, potential=energy, whitening=whitening)
    proposal = bound(load_flow(weights), peptide)
    masses = molecule.masses.float()[:, None] / molecule.masses.float().sum()

    def place(moved: Positions, present: Positions) -> Positions:
        turned = posed(moved, present, peptide.frame)
        return turned + ((present - turned) * masses).sum(-2, keepdim=True)

    same = dict(peptide.chart.arrays()) | {REFERENCE: torch.as_tensor(reference)}
    return Bound(flow_kernel(peptide, proposal, 0, WIDTH), place, same, notices)


def _geometry(target: Target) -> np.ndarray:
    """Positions from which thermal motion is taken, with the heavy atoms held."""
    from timewarp.md.relax import relax

    heavy = np.array([atom.element is None or atom.element.atomic_number > 1 for atom in target.topology.atoms()])
    centred = target.positions - target.positions.mean(0)  # far from the origin, single precision is coarse
    return relax(target.system, centred, heavy, iterations=500)[0]


def _require_poseless(energy: OpenMMEnergy, positions: np.ndarray) -> None:
    """Raise where the energy of a moved and turned molecule is another one."""
    from timewarp.md.faults import InputError

    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    turn = turn * torch.linalg.det(turn)
    here = torch.as_tensor(positions, dtype=torch.float64)
    found = energy.kilojoules(torch.stack([here, here @ turn.T, here + 0.1]))[0]
    if not (found - found[0]).abs().max() <= SAME + 1e-5 * found[0].abs():
        raise InputError(
            f"expected a potential that does not see where the molecule is or how it is turned, found {found[0]:.3f} "
            f"kJ/mol, {found[1]:.3f} turned and {found[2]:.3f} moved by 0.17 nm; leave out forces that hold it"
        )
