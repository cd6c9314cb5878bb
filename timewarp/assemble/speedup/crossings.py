"""How often MD crosses, from dynamics in equilibrium that is far longer than what MD makes in its time.

MD of a minute may cross once or never, and is then worth little, or not known what. The batched potential makes the
same dynamics of many replicas at once. They begin at frames of the reference, so that they are in equilibrium from the
first step, and crossings in proportion to the time are expected of them and of MD alike. What one process of MD would
see in hours is so known in a minute; how many picoseconds it makes a second is its own.

Frames are a picosecond apart, so that an excursion which ends sooner is no crossing. The bound holds nevertheless: the
autocorrelation C of a reversible process is log-convex, so that it is at least C(EVERY)^(t / EVERY) from there on, and
crossings counted at an interval say what C(EVERY) is; but for a part of half of `EVERY` over the timescale.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from timewarp.analysis.distances import thinned
from timewarp.assemble.energy import energy_of
from timewarp.assemble.yardstick import Yardstick, cache
from timewarp.atomic import write_atomically
from timewarp.energy import Potential
from timewarp.kernel import run
from timewarp.mcmc.dynamics import Langevin, repartitioned
from timewarp.state import State

if TYPE_CHECKING:
    from timewarp.assemble.speedup.target import Target
    from timewarp.md.system import Prepared
    from timewarp.state import Molecule

REPLICAS = 256
EVERY = 1.0  # ps between frames
CHUNK = 25  # frames that are looked at together
SEED = 20_26  # of all of them
FORMAT = 1  # of the files; another number makes all of them anew


@dataclass(frozen=True)
class Crossings:
    """What dynamics in equilibrium did, all replicas together.

    Attributes:
        picoseconds: made.
        turns: crossings between the sides of the slowest coordinate.
        entries: crossings into and out of each basin.
        high: share of the time on the high side.
        shares: of the time in each basin. With the crossings, these tell rates also where the reference has a wrong
            population: as many more begin in a basin as leave it.
    """

    picoseconds: float = 0.0
    turns: int = 0
    entries: Mapping[str, int] = field(default_factory=dict)
    high: float = 0.5
    shares: Mapping[str, float] = field(default_factory=dict)


def crossings_of(
    prepared: Prepared, temperature: float, reference: Yardstick, target: Target, method: str, seconds: float,
    gone: Callable[[], bool] = lambda: False,
) -> Crossings:  # fmt: skip
    """Crossings of a protocol's dynamics, run for so many seconds, or from the cache.

    Nothing, where the force field is not one that the batched potential knows.

    Args:
        prepared: the peptide.
        temperature: K.
        reference: whose frames it begins at.
        target: that is made of it; says what is a crossing.
        method: of OpenMM's dynamics, as `md-tuned`.
        seconds: wall-clock.
        gone: whether nobody waits any more.
    """
    from timewarp.md.energy import fingerprint

    made_of = sha256(np.ascontiguousarray(reference.energy, dtype=np.float64).tobytes()).hexdigest()
    identity = {"format": FORMAT, "peptide": prepared.sequence, "potential": fingerprint(prepared.system)}
    identity |= {"temperature": temperature, "reference": made_of, "method": method, "seconds": seconds}
    key = sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    path = cache() / f"{prepared.sequence}-crossings-{key}.json"
    try:
        return Crossings(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        pass  # none there, or half of one
    energy, molecule, _ = energy_of(prepared, temperature, compiled=seconds >= 10)
    if not isinstance(energy, Potential):
        return Crossings()
    kernel = dynamics_of(method, molecule, energy, temperature)
    starts = thinned(reference.positions.reshape(-1, *reference.positions.shape[2:]), REPLICAS)
    rng = torch.Generator().manual_seed(SEED)
    phase = kernel.init(State.at(torch.as_tensor(starts, dtype=torch.float32), 3, rng))
    frames = (phase.positions for phase, _ in run(kernel, phase, 2**40, rng))
    began = time.monotonic()
    made = counted(phase.positions, frames, target, lambda: time.monotonic() - began > seconds or gone())
    if not gone():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(asdict(made)).encode())
        except OSError:
            pass  # a full or read-only disk costs time, not the run
    return made


def dynamics_of(method: str, molecule: Molecule, potential: Potential, temperature: float) -> Langevin:
    """The batched dynamics in place of a method of OpenMM, with its friction and masses; a step of it is `EVERY` long.

    Bonds to hydrogen, which some of the methods hold, move here, at half of their time step.
    """
    from timewarp.md.baseline import INTEGRATIONS

    how = INTEGRATIONS[method.removeprefix("md-")]
    step = how.step / 2 if how.rigid else how.step
    masses = repartitioned(molecule, how.hydrogen) if how.hydrogen else molecule.masses
    steps = round(EVERY / step)
    return Langevin(potential, masses, temperature, timestep=step, friction=how.friction, steps=steps, centred=True)


def counted(
    starts: Float[Tensor, "replicas atoms 3"],
    frames: Iterator[Float[Tensor, "replicas atoms 3"]],
    target: Target,
    over: Callable[[], bool],
) -> Crossings:
    """Crossings of dynamics from these starts, whose frames are `EVERY` apart, until it is over."""
    from timewarp.assemble.speedup.target import crossings

    turns, number, seen, sides = 0, 0, 0, np.zeros((len(starts), 0))
    entries, inside = dict.fromkeys(target.shares, 0), dict.fromkeys(target.shares, 0)
    marks = np.zeros(3)  # low, between, high
    chunk = [starts]
    for frame in frames:
        chunk.append(frame)
        number += 1
        done = over()
        if len(chunk) > CHUNK or done:
            positions = torch.stack(chunk, 1).numpy()
            words = target.words(positions)
            entries = {name: count + crossings(words, name) for name, count in entries.items()}
            inside = {name: count + int((words == name).sum()) for name, count in inside.items()}
            seen += words.size
            # a replica between the sides belongs to the one where it was last: that is carried on
            slow = np.concatenate([sides, target.slow(positions)[..., 0]], 1)
            turns += target.sides.crossings(slow)
            marks += np.bincount(target.sides.marks(slow).ravel() + 1, minlength=3)
            sides = target.sides.last(slow)
            chunk = chunk[-1:]
        if done:
            break
    made = number * len(starts) * EVERY
    low, _, high = marks.tolist()
    shares = {name: count / seen for name, count in inside.items()}
    return Crossings(made, turns, entries, high / (low + high) if low + high else 0.5, shares)
