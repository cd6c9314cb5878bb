"""Two samples of one peptide compared: K-S with effective sample sizes, overlap, means; and references from dynamics.

The references know no flow. Chains of dynamics cross the slow barriers of peptides too seldom for minutes of it to say
where they spend their time, and chains that begin at one structure agree with one another about what none of them has
seen. So dynamics begins at frames of exact parallel tempering, which goes on until it agrees with itself (halves,
starts, R-hat): on the batched potential (256 replicas, 2 fs, 1/ps, hydrogens of 3 amu), and by OpenMM (4 fs, 1/ps, the
same hydrogens on rigid bonds). Replicas that begin at frames of one ladder count as one chain, so that an effective
sample size owns up to what these have in common.
"""

import json
import os
import time
from dataclasses import dataclass, field, replace

import mdtraj
import numpy as np
import torch

from timewarp.analysis import Ensemble, kolmogorov_smirnov, overlap
from timewarp.assemble.energy import energy_of
from timewarp.assemble.mixing import mixing
from timewarp.assemble.peptide import Peptide
from timewarp.assemble.reference import prepared as tempering_of
from timewarp.kernel import run
from timewarp.mcmc import bulk_ess
from timewarp.mcmc.dynamics import Langevin
from timewarp.md import prepare
from timewarp.md.baseline import frames as openmm_frames
from timewarp.state import State
from timewarp.units import kT

T = 310.0
SCALE = float(os.environ.get("TIMEWARP_AGAINST_SCALE", "1"))  # multiplies all lengths
LADDERS, ROUNDS, BLOCK = 32, 4, round(100 * SCALE)  # of tempering; rounds a frame, frames between two looks
LONGEST = float(os.environ.get("TIMEWARP_TEMPERING_SECONDS", "900"))
EACH, PICOSECONDS, FORGOTTEN = 8, 12 * SCALE, 4.0  # replicas of a ladder; of each; left out of it
OPENMM_PICOSECONDS, OPENMM_FORGOTTEN = 10 * SCALE, 2.0  # of one replica of a ladder
INTERVAL = 0.2  # ps between frames of dynamics
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


def equilibrium(pdb, file):
    """Tempering, dynamics and OpenMM's of a peptide at 310 K, by their names; kept in `file` (.npz)."""
    prepared = prepare(pdb)
    topology = mdtraj.Topology.from_openmm(prepared.topology)
    if not file.exists():
        energy, molecule, _ = energy_of(prepared, T, compiled=True)
        peptide = Peptide.of(molecule, T, potential=energy, seed=SEED)
        x, u, facts = _tempered(peptide)
        chosen = x[:, torch.linspace(0, x.shape[1] - 1, EACH).long()]
        parts = {"tempering": (x, u * kT(T)), "MD": _dynamics(peptide, chosen), "OpenMM": _openmm(prepared, x[:, -1])}
        arrays = {f"{name}.{what}": v for name, both in parts.items() for what, v in zip(("x", "u"), both)}
        np.savez(file, facts=json.dumps(facts), each=EACH, interval=INTERVAL, **arrays)
    kept = np.load(file)
    sides = {
        name: Side.of(Ensemble.of(topology, kept[f"{name}.x"]), kept[f"{name}.u"])
        for name in ("tempering", "MD", "OpenMM")
    }
    sides["tempering"].facts.update(json.loads(str(kept["facts"])))
    sides["MD"].facts.update(each=int(kept["each"]), interval=float(kept["interval"]))
    # a rigid bond to a hydrogen lacks the energy of a harmonic one, half the square of a normal variable in kT
    hydrogens, known = sum(atom.element.symbol == "H" for atom in topology.atoms), sides["OpenMM"].energy
    lacking = kT(T) * np.random.default_rng(SEED).gamma(hydrogens / 2, size=known.shape)
    sides["OpenMM"] = replace(sides["OpenMM"], energy=known + lacking)
    return sides


def _tempered(peptide):
    """(positions, U/kT, how well it is mixed) of ladders, [ladders, frames]; the first fifth is left out."""
    began, rng = time.monotonic(), torch.Generator().manual_seed(SEED)
    tempering, state = tempering_of(peptide, LADDERS, rng)
    kept, start = [], [int(ladder >= LADDERS // 2) for ladder in range(LADDERS)]
    for number, (state, _) in enumerate(run(tempering, state, 2**40, rng), 1):  # noqa: B020
        if number % ROUNDS == 0:
            kept.append(state.cold)
        if number % (ROUNDS * BLOCK) == 0:
            late = kept[len(kept) // 5 :]
            energy = torch.stack([frame.energy for frame in late], 1)
            facts = mixing(torch.stack([frame.torsions for frame in late], 1), energy, start)
            if facts["agree"] or time.monotonic() - began > LONGEST:
                break
    return torch.stack([frame.positions for frame in late], 1).float(), energy, facts


def _dynamics(peptide, starts):
    """Of [ladders, replicas]: positions and kJ/mol, [ladders, replicas one after the other]."""
    rng = torch.Generator().manual_seed(SEED)
    kernel = Langevin.of(peptide.molecule, peptide.potential, T, steps=round(INTERVAL / 0.002))
    phase = kernel.init(State.at(starts.flatten(0, 1), 3, rng))
    phases = [phase for phase, _ in run(kernel, phase, round(PICOSECONDS / INTERVAL), rng)]
    phases = phases[round(FORGOTTEN / INTERVAL) :]
    x, u = (torch.stack([getattr(phase, what) for phase in phases], 1) for what in ("positions", "energy"))
    return tuple(t.unflatten(0, starts.shape[:2]).flatten(1, 2) for t in (x, u * kT(T)))


def _openmm(prepared, starts):
    """As `_dynamics`, of one replica of each ladder."""
    x, u = [], []
    for seed, start in enumerate(starts.double().numpy(), 1):
        stream = openmm_frames(replace(prepared, positions=start), "tuned", "CPU", T, INTERVAL, seed)
        made = [next(stream) for _ in range(round(OPENMM_PICOSECONDS / INTERVAL))]
        made = made[round(OPENMM_FORGOTTEN / INTERVAL) :]
        x.append(np.stack([frame.positions for frame in made]))
        u.append([frame.potential for frame in made])
    return np.stack(x), np.array(u)


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


def rows(reference, other):
    """A comparison of each angle, and of the energy."""
    found = {}
    for name, x in reference.angles.items():
        y = other.angles[name]
        found[name] = compared(*unrolled(x, y), [angle_ess(x), angle_ess(y)])
    both = reference.energy, other.energy
    ess = [bulk_ess(e) for e in both]
    errors = [e.std() / np.sqrt(n) for e, n in zip(both, ess)]
    found["energy"] = compared(*both, ess) | {
        "means": [round(float(e.mean()), 3) for e in both],
        "errors": [round(float(e), 3) for e in errors],
        "deviations": [round(float(e.std()), 3) for e in both],
        "sigma": round(float((both[1].mean() - both[0].mean()) / np.hypot(*errors)), 2),
    }
    return found
