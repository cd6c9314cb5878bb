"""Two alanines whose first psi jumps between two values: chains with known laws, seen through everything that judges.

The jumps are those of a two-state Markov chain, so that the slowest observable has the autocorrelation (1 - 2 f)^t for
equal populations, f being the chance to jump in a frame.
"""

import mdtraj
import numpy as np

from timewarp.analysis.features import tica_features
from timewarp.analysis.tica import fit_tica
from timewarp.assemble.speedup.record import Record
from timewarp.assemble.speedup.target import Target
from timewarp.assemble.yardstick import Yardstick
from timewarp.resources import peptide_path

NOISE = 0.001  # nm


def topology():
    return mdtraj.load(peptide_path("AA")).topology


def conformers():
    """The prepared structure, and what it is after half a turn of the first psi, nm."""
    structure = mdtraj.load(peptide_path("AA"))
    first = structure.xyz[0].astype(float)
    atoms = {(atom.residue.index, atom.name): atom.index for atom in structure.topology.atoms}
    start, end = first[atoms[0, "CA"]], first[atoms[0, "C"]]
    axis = (end - start) / np.linalg.norm(end - start)
    behind = [a.index for a in structure.topology.atoms if a.residue.index == 1 or a.name == "O"]
    arm = first[behind] - start
    second = first.copy()
    second[behind] = start + 2 * np.outer(arm @ axis, axis) - arm
    return np.stack([first, second])


def jumps(rng, chains, frames, up, down):
    """Two-state chains that begin at equilibrium; chances to go up and down in a frame."""
    state = np.zeros((chains, frames), dtype=int)
    now = rng.random(chains) < up / (up + down)
    for k in range(frames):
        state[:, k] = now
        now = np.where(rng.random(chains) < np.where(now, down, up), ~now, now)
    return state


def positions(rng, state):
    x = conformers()[state]
    return (x + NOISE * rng.standard_normal(x.shape)).astype(np.float32)


def target(share=0.5, alone=False):
    """The reference: independent frames with `share` of them in the second conformer; `alone`, all in one half."""
    rng = np.random.default_rng(1)
    state = (rng.random((2, 3000)) < share).astype(int)
    if alone:
        state[1] = 0
    slow = tica_features(topology(), positions(rng, jumps(rng, 4, 1500, 0.05 * share, 0.05 * (1 - share))))
    energy = rng.standard_normal((2, 3000))
    facts = {"ess": 3000.0, "agree": True}
    return Target.of(topology(), Yardstick(positions(rng, state), energy, fit_tica(slow, 5), {}, facts), 0.2)


def records(rng, state, setup=2.0, end=10.0, **facts):
    """Those of two processes, which have half of the chains each."""
    seconds = np.linspace(setup, end, state.shape[1] + 1)[1:]
    energy = rng.standard_normal(state.shape)
    return [
        Record(positions(rng, part), noise, seconds, setup, end, facts)
        for part, noise in zip(np.array_split(state, 2), np.array_split(energy, 2), strict=True)
    ]


def row(peptide="AA", method="sample", **changes):
    """A row as `bench.json` has it, of a method that passed."""
    usual = {
        "peptide": peptide, "atoms": 23, "method": method, "residues": 2, "seed": 0, "seconds": 10.0,
        "setup_seconds": 2.0, "ess": 100.0, "ess_per_second": 10.0, "ess_per_second_sampling": 12.5,
        "published_ess_per_second": 11.0, "rhat": 1.001, "gates": [], "missed_basins": [], "acceptance": None,
        "states_seconds": 3.0, "ess_bound_per_second": 20.0, "machine": "abacus, 2 cores, cpu", "load": 1.0,
        "budget": 10.0,
    }  # fmt: skip
    return usual | changes
