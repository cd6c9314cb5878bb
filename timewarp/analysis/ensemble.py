"""An `Ensemble` is what the analysis sees of a run: named dihedral angles, frame by frame and chain by chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from timewarp.analysis.dihedrals import (
    Dihedral,
    chiral_centres,
    circular,
    dihedral_angles,
    dihedral_table,
    handedness,
    is_cis,
)
from timewarp.dcd import Trajectory

if TYPE_CHECKING:
    from mdtraj import Topology

CHUNK = 5000  # frames analysed at once, to bound the memory


@dataclass(frozen=True)
class Ensemble:
    """Dihedral angles of several chains of equal length.

    Attributes:
        table: the dihedrals, in the order of the last axis of `angles`.
        angles: rad.
        centres: numbers of the residues with a chiral CA.
        volumes: signed volume of each centre, nm^3; the sign is the handedness.
        left_out: frames of longer chains that were cut to the length of the shortest.
    """

    table: tuple[Dihedral, ...]
    angles: Float[np.ndarray, "chains frames dihedrals"]
    centres: tuple[int, ...]
    volumes: Float[np.ndarray, "chains frames centres"]
    left_out: int = 0

    @classmethod
    def of(cls, topology: Topology, positions: Float[np.ndarray, "chains frames atoms 3"]) -> Ensemble:
        """The ensemble of positions in memory, in nm."""
        table, centres = dihedral_table(topology), chiral_centres(topology)
        angles, volumes = dihedral_angles(positions, table), handedness(positions, centres)
        return cls(tuple(table), angles, tuple(number for number, _ in centres), volumes)

    @classmethod
    def load(cls, topology_pdb: Path, trajectories: Sequence[Path], every: int = 1) -> Ensemble:
        """The ensemble of trajectory files, one a chain; all are cut to the shortest, from the end.

        Args:
            topology_pdb: the molecule.
            trajectories: DCD files.
            every: of so many frames the first is taken, and the others are not read.

        Raises:
            ValueError: if there is no trajectory.
        """
        import mdtraj

        if not trajectories:
            raise ValueError("expected at least one trajectory, got none; name the chain-*.dcd files of a run")
        topology = mdtraj.load_pdb(str(topology_pdb), standard_names=False).topology
        chains = [_read(topology, path, every) for path in trajectories]
        frames = min(chain.angles.shape[1] for chain in chains)
        return cls(
            chains[0].table,
            np.concatenate([chain.angles[:, :frames] for chain in chains]),
            chains[0].centres,
            np.concatenate([chain.volumes[:, :frames] for chain in chains]),
            sum(chain.angles.shape[1] - frames for chain in chains),
        )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(d.name for d in self.table)

    @property
    def chains(self) -> int:
        return self.angles.shape[0]

    @property
    def frames(self) -> int:
        return self.angles.shape[1]

    def angle(self, name: str) -> Float[np.ndarray, "chains frames"]:
        """One dihedral by its name, such as `phi 2`, in rad."""
        return self.angles[..., self.names.index(name)]

    def backbone(self) -> Float[np.ndarray, "chains frames torsions"]:
        """All phi, then all psi: the torus of the T-W2 distance."""
        phi = [i for i, d in enumerate(self.table) if d.kind == "phi"]
        return self.angles[..., phi + [i for i, d in enumerate(self.table) if d.kind == "psi"]]

    def features(self) -> Float[np.ndarray, "chains frames features"]:
        """Sines and cosines of all dihedrals, for TICA."""
        return circular(self.angles).reshape(self.chains, self.frames, 2 * self.angles.shape[2])

    def observables(self) -> dict[str, Float[np.ndarray, "chains frames 2"]]:
        """Sine and cosine of each dihedral by its name, as `verdict` takes them."""
        both = circular(self.angles)
        return {name: both[:, :, i] for i, name in enumerate(self.names)}

    def cis(self) -> dict[str, float]:
        """Share of the frames in which each peptide bond is cis, by the name of its omega."""
        bonds = [i for i, d in enumerate(self.table) if d.kind == "omega"]
        return {self.names[i]: float(is_cis(self.angles[..., i]).mean()) for i in bonds if self.frames}

    def flipped(self) -> int:
        """Frames in which a CA has another handedness than in the first frame of the first chain."""
        if not self.volumes.size:
            return 0
        return int(np.any(np.sign(self.volumes) != np.sign(self.volumes[0, 0]), axis=-1).sum())


def _read(topology, path, every) -> Ensemble:
    parts = [Ensemble.of(topology, block[None]) for block in _blocks(topology, path, every)]
    if not parts:
        return Ensemble.of(topology, np.zeros((1, 0, topology.n_atoms, 3), dtype=np.float32))
    join = [np.concatenate([getattr(part, field) for part in parts], axis=1) for field in ("angles", "volumes")]
    return Ensemble(parts[0].table, join[0], parts[0].centres, join[1])


def _blocks(topology, path, every):
    trajectory = Trajectory(Path(path), topology.n_atoms)
    try:
        frames = trajectory.frames()
    except ValueError:  # another program's file
        import mdtraj

        yield from (part.xyz for part in mdtraj.iterload(str(path), top=topology, chunk=CHUNK, stride=every))
        return
    step = CHUNK * every
    yield from (trajectory.read(i, i + step, every) for i in range(0, frames, step))
