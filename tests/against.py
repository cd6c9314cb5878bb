"""Two samples of one peptide compared: K-S with effective sample sizes, overlap, means; and a reference from dynamics.

The reference knows no flow. Chains of dynamics cross the slow barriers of peptides too seldom for minutes of it to say
where they spend their time, so it is Langevin dynamics of many replicas (2 fs, 1/ps, hydrogens of 3 amu), from frames
of exact parallel tempering that must agree with itself (halves, starts, R-hat).
"""

import json
import os
from dataclasses import dataclass, field

import mdtraj
import numpy as np
import torch

from timewarp.analysis import Ensemble, kolmogorov_smirnov, overlap
from timewarp.assemble.energy import energy_of
from timewarp.assemble.peptide import Peptide
from timewarp.assemble.reference import reference_ensemble
from timewarp.kernel import run
from timewarp.mcmc import bulk_ess, rhat
from timewarp.mcmc.dynamics import Langevin
from timewarp.md import prepare
from timewarp.state import State
from timewarp.units import kT

T = 310.0
SCALE = float(os.environ.get("TIMEWARP_AGAINST_SCALE", "1"))  # multiplies all lengths
REPLICAS, PICOSECONDS, FORGOTTEN = 256, round(16 * SCALE), 4  # of dynamics; its first picoseconds are left out
LADDERS, FRAMES, LONGEST = 32, round(3200 * SCALE), 300.0  # of parallel tempering; seconds
SEED = 7


@dataclass(frozen=True)
class Side:
    """Angles (rad) by name and energies (kJ/mol), [chains, frames] each."""

    angles: dict[str, np.ndarray]
    energy: np.ndarray
    facts: dict = field(default_factory=dict)

    @classmethod
    def of(cls, ensemble, energy, **facts):
        names = [name for name in ensemble.names if "omega" not in name]
        return cls({name: ensemble.angle(name) for name in names}, energy, facts)

    def mixed(self, name):
        """R-hat of an angle."""
        x = self.angles[name]
        return max(rhat(np.cos(x)), rhat(np.sin(x)))


def equilibrium(pdb, file):
    """(dynamics, tempering) of a peptide at 310 K, kept in `file` (.npz)."""
    prepared = prepare(pdb)
    topology = mdtraj.Topology.from_openmm(prepared.topology)
    if not file.exists():
        energy, molecule, _ = energy_of(prepared, T, compiled=True)
        peptide = Peptide.of(molecule, T, potential=energy, seed=SEED)
        made = reference_ensemble(peptide, FRAMES, SEED, LONGEST, ladders=LADDERS)
        rng = torch.Generator().manual_seed(SEED)
        starts = made.positions[torch.linspace(0, len(made.positions) - 1, REPLICAS).long()].float()
        dynamics = Langevin.of(molecule, energy, T, steps=500)
        phases = [p for p, _ in run(dynamics, dynamics.init(State.at(starts, 3, rng)), PICOSECONDS, rng)][FORGOTTEN:]
        np.savez(
            file,
            md=torch.stack([p.positions for p in phases], 1),
            md_energy=torch.stack([p.energy for p in phases], 1) * kT(T),
            tempering=made.positions.unflatten(0, (-1, LADDERS)).transpose(0, 1).float(),
            tempering_energy=made.energy.unflatten(0, (-1, LADDERS)).T * kT(T),
            facts=json.dumps(made.facts),
        )
    kept = np.load(file)
    return [
        Side.of(Ensemble.of(topology, kept[name]), kept[f"{name}_energy"], **facts)
        for name, facts in (("md", {}), ("tempering", json.loads(str(kept["facts"]))))
    ]


def angle_ess(x):
    """Of an angle (rad), [chains, frames]."""
    return max(2.0, min(bulk_ess(np.cos(x)), bulk_ess(np.sin(x))))


def unrolled(one, other):
    """Angles cut where neither sample has much, so that a distribution on the circle is one on a line."""
    counts, edges = np.histogram(np.concatenate([one.ravel(), other.ravel()]), bins=36, range=(-np.pi, np.pi))
    cut = edges[int(np.argmin(counts))]
    return tuple((x - cut) % (2 * np.pi) for x in (one, other))


def compared(one, other, ess):
    """K-S and overlap of two series, with the effective sample size of each."""
    test = kolmogorov_smirnov(one.ravel(), other.ravel(), *ess)
    return {
        "ess": [round(float(n)) for n in ess], "D": round(test.statistic, 4), "p": round(test.pvalue, 4),
        "overlap": round(overlap(one.ravel(), other.ravel()), 4),
    }  # fmt: skip


def rows(reference, other, shift=0.0):
    """A comparison of each angle, and of the energy, which has `shift` added to the reference's."""
    found = {}
    for name, x in reference.angles.items():
        y = other.angles[name]
        found[name] = compared(*unrolled(x, y), [angle_ess(x), angle_ess(y)])
    both = reference.energy + shift, other.energy
    ess = [bulk_ess(e) for e in both]
    errors = [e.std() / np.sqrt(n) for e, n in zip(both, ess)]
    found["energy"] = compared(*both, ess) | {
        "means": [round(float(e.mean()), 3) for e in both],
        "errors": [round(float(e), 3) for e in errors],
        "deviations": [round(float(e.std()), 3) for e in both],
        "sigma": round(float((both[1].mean() - both[0].mean()) / np.hypot(*errors)), 2),
    }
    return found
