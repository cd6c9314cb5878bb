"""The energy that a run uses: the batched potential where it agrees with OpenMM, else OpenMM itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from timewarp.energy import Potential
from timewarp.kernel import Energy
from timewarp.state import Molecule, Positions

if TYPE_CHECKING:
    from timewarp.md.energy import OpenMMEnergy
    from timewarp.md.system import Prepared

TOLERANCE = 1e-2  # kJ/mol
DISTORTIONS = (0.0, 0.001, 0.003, 0.006)  # nm, standard deviation of each coordinate
SEED = 0  # of the distortions


class EnergyMismatch(RuntimeError):
    """The batched potential and OpenMM differ, so that nothing sampled with it could be trusted."""


def energy_of(
    prepared: Prepared, temperature: float, *, compiled: bool = False, device: str = "cpu"
) -> tuple[Energy, Molecule, tuple[str, ...]]:
    """U/kT of a prepared peptide, its molecule, and notices on how the energy is computed.

    The batched potential is compared with OpenMM (Reference platform) on the prepared structure and on distorted
    ones. A System with a force that it does not know is left to OpenMM, with a notice that names the force; the
    molecule then has the tables of the other forces, which is what charts and tokens are made from.

    Args:
        temperature: K.
        compiled: fuse the loops of the batched potential.
        device: where the batched potential computes.

    Raises:
        EnergyMismatch: if the two differ by more than `TOLERANCE`.
        UnsupportedForce: if the System has constraints, under which no flow here can move.
    """
    from timewarp.md.energy import OpenMMEnergy
    from timewarp.md.export import UnsupportedForce, export
    from timewarp.md.partial import export_known

    parts = prepared.topology, prepared.system, prepared.positions
    try:
        molecule = export(*parts)
    except UnsupportedForce:
        molecule, reasons = export_known(*parts)
        notice = f"OpenMM computes the energy, one configuration at a time: {'; '.join(reasons)}"
        return OpenMMEnergy(prepared.system, temperature), molecule, (notice,)
    batched = Potential(molecule, temperature, compiled=compiled, device=device)
    precise = Potential(molecule, temperature, dtype=torch.float64)
    compare((precise, batched), OpenMMEnergy(prepared.system, temperature, "Reference"), molecule.reference)
    batched.evaluations = 0
    return batched, molecule, ()


def compare(potentials: Sequence[Potential], reference: OpenMMEnergy, structure: Positions) -> float:
    """The largest difference in kJ/mol between `potentials` and `reference`, on `structure` (nm) and distortions of it.

    Raises:
        EnergyMismatch: if it exceeds `TOLERANCE`, or if one is not finite where the other is.
    """
    rng = torch.Generator().manual_seed(SEED)
    noise = torch.randn(len(DISTORTIONS), *structure.shape, generator=rng, dtype=torch.float64)
    positions = structure.double().cpu() + torch.tensor(DISTORTIONS, dtype=torch.float64)[:, None, None] * noise
    expected = reference.kilojoules(positions)[0]
    found = torch.stack([p.kilojoules(positions.to(p.device))[0].double().cpu() for p in potentials])
    error = torch.where(found == expected, 0.0, (found - expected).abs().nan_to_num(nan=torch.inf))
    worst = int(error.argmax())
    if not error.max() <= TOLERANCE:
        raise EnergyMismatch(
            f"expected the batched potential to agree with OpenMM within {TOLERANCE:g} kJ/mol, got "
            f"{found.flatten()[worst]:.6f} against {expected.expand_as(found).flatten()[worst]:.6f} kJ/mol; nothing "
            "was sampled: this force field has something that timewarp reads wrongly, please report it"
        )
    return float(error.max())
