"""From the records of a method to its row: effective samples, gates, bounds, and when it had seen every state.

Observables and estimators are those of the verdict of `timewarp sample`: rank-normalised split R-hat and bulk ESS of
the slow coordinates, of the sine and cosine of every dihedral and of the energy; to these comes whether a chain is in
a basin of the reference, for each. The worst counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from timewarp.analysis.convergence import verdict
from timewarp.analysis.ensemble import Ensemble
from timewarp.assemble.speedup.bound import most_effective_samples, pairs
from timewarp.assemble.speedup.crossings import EVERY
from timewarp.assemble.speedup.free_energies import free_energies
from timewarp.assemble.speedup.gates import complaints, farthest, missed
from timewarp.assemble.speedup.record import Record
from timewarp.assemble.speedup.target import Target, crossings
from timewarp.mcmc.ess import autocorrelation_time, bulk_ess, rhat

WARM_UP = 0.1  # of the frames, which are left out of the estimates; their time counts
POINTS = 300  # of a curve that is kept for figures


def judged(
    records: Sequence[Record], target: Target, temperature: float, biased: bool = False, method: str = ""
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The row of a method, and curves of it.

    Args:
        records: of its processes; chains are cut to the shortest.
        target: of the peptide.
        temperature: K.
        biased: by design, so that only the states that it finds count.
        method: one of `target.dynamics`, if what that dynamics does in equilibrium shall bound it.

    Returns:
        the row: `ess` (None if `biased`), `seconds` (wall-clock, everything counted), `setup_seconds`,
        `ess_per_second`, `ess_per_second_sampling` (set-up not counted), `published_ess_per_second`, `gates` (what was
        failed), `ess_bound` and `ess_bound_per_second` (at most), `missed_basins`, `doubtful_basins` (see `Target`, not
        asked for) and of them `missed_doubtful`, `states_seconds` (None if never), `free_energies` (of basins, against
        the reference);
        the curves: `autocorrelation` of the slowest coordinate and its `trace`, against wall-clock seconds.
    """
    seconds = max(record.end for record in records)
    setup = max(record.setup for record in records)
    records = [record for record in records if len(record.seconds)] or records
    row: dict[str, Any] = {"seconds": seconds, "setup_seconds": setup, "processes": len(records)}
    row["doubtful_basins"] = sorted(target.doubtful, key=lambda name: -target.doubtful[name])
    row["frames"] = frames = min(len(record.seconds) for record in records)
    row["chains"] = sum(len(record.energy) for record in records)
    row |= _told(records)
    if not frames:
        return row | _nothing(target, seconds, biased), {}
    found = [target.words(record.positions) for record in records]
    times = [record.seconds for record in records]
    row["basins"] = len(target.shares)
    visited = np.concatenate([words.ravel() for words in found])
    row["missed_basins"], row["missed_doubtful"] = missed(visited, target.shares), missed(visited, target.doubtful)
    row["states_seconds"] = until_all(found, times, list(target.shares))
    slow = [target.slow(record.positions) for record in records]
    curves = _curves(records, slow)
    if biased:
        return row | {"ess": None, "ess_per_second": None, "gates": []}, curves
    skip = int(WARM_UP * frames)
    kept = slice(skip, frames)
    chains = np.concatenate([part[:, kept] for part in slow])
    energy = np.concatenate([record.energy[:, kept] for record in records])
    parts = [Ensemble.of(target.topology, record.positions[:, kept]).observables() for record in records]
    observables = {f"TIC{k}": chains[..., k] for k in range(chains.shape[-1])}
    observables |= {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    observables["potential energy"] = energy
    words = np.concatenate([part[:, kept] for part in found])
    inside = {name: (words == name).astype(float) for name in target.shares}
    observables |= {f"in {name}": values for name, values in inside.items() if np.ptp(values) > 0}
    held = verdict(observables, ess=bulk_ess, rhat=rhat)
    sizes = {name: held["ess"][name] for name in observables}
    basin, gap = farthest(words, target.shares, target.errors, temperature)
    said = complaints(chains.shape[1], held["rhat"]["max"], row["missed_basins"], basin, gap)
    estimates = [held["ess"]["min"]]
    if "picoseconds" in row and target.timescale:
        estimates.append(row["picoseconds"] / (2 * target.timescale))
    turns = sum(target.sides.crossings(part[..., 0]) for part in slow)
    entries = {name: sum(crossings(part, name) for part in found) for name in target.shares}
    most = at_most(target, turns, entries, estimates)
    long = _in_the_long_run(row, target, method, slow)
    published = published_ess(chains[..., 0])
    return row | {
        "ess": held["ess"]["min"],
        "slowest": min(sizes, key=lambda name: sizes[name]),
        "ess_by_observable": sizes,
        "rhat": held["rhat"]["max"],
        "verdict": held["verdict"],
        "gates": said,
        "population_gap": gap,
        "free_energies": free_energies(words, target.shares, target.errors, temperature),
        "crossings": turns,
        "basin_crossings": entries,
        "ess_bound": min(most, long.get("dynamics_ess_bound", most)),
        "ess_bound_per_second": min(most, long.get("dynamics_ess_bound", most)) / seconds,
        "ess_per_second": held["ess"]["min"] / seconds,
        "ess_per_second_sampling": held["ess"]["min"] / (seconds - setup) if seconds > setup else None,
        "published_ess": published,
        "published_ess_per_second": published / seconds,
    } | long, curves


def _nothing(target: Target, seconds: float, biased: bool) -> dict[str, Any]:
    """The rest of a row without a frame."""
    none = None if biased else 0.0
    most = at_most(target, 0, dict.fromkeys(target.shares, 0))
    return {
        "basins": len(target.shares),
        "missed_basins": list(target.shares),
        "states_seconds": None,
        "ess": none,
        "ess_per_second": none,
        "ess_bound": most,
        "ess_bound_per_second": most / seconds,
        "rhat": None,
        "gates": [] if biased else complaints(0, None, [], "", 0.0),
    }


def at_most(target: Target, turns: int, entries: Mapping[str, int], estimates: Sequence[float] = ()) -> float:
    """The largest effective sample size of the slowest observable that crossings and estimates allow.

    The slowest is no faster than the slowest basin, so that the least of the limits holds.

    Args:
        turns: crossings between the sides of the slowest coordinate.
        entries: crossings into and out of each basin.
        estimates: see `most_effective_samples`.
    """
    count = len(entries) + 1
    limits = [most_effective_samples(turns, target.sides.share, target.sides.between, estimates, count)]
    limits += [
        most_effective_samples(entries[name], target.safe_share(name), 1.0, estimates, count)
        for name in entries
        if target.shares[name] < 1
    ]
    return min(limits)


def _in_the_long_run(row: Mapping[str, Any], target: Target, method: str, slow: Sequence[np.ndarray]) -> dict[str, Any]:
    """What the dynamics of the method in equilibrium says of it; nothing, where there is none.

    Args:
        slow: the slow coordinates of the method's own chains, one array a process.

    Returns:
        `crossings_as_dynamics`, the method's own crossings, counted in frames as far apart as that dynamics' are;
        `dynamics_picoseconds`, `dynamics_crossings` (of the slowest coordinate) and `dynamics_basin_crossings` of that
        dynamics; `dynamics_ess_bound`, the most effective samples that it allows the method's own picoseconds;
        `states_seconds_expected`, the mean time, at least, until the method was in that basin which takes longest.
    """
    found = target.dynamics.get(method)
    if found is None or not found.picoseconds or not row.get("picoseconds"):
        return {}
    made, seconds = row["picoseconds"], row["seconds"]
    entries = {name: crossed for name, crossed in found.entries.items() if name in target.shares}
    if not entries:
        return {}
    count = len(entries) + 1
    shares = {name: found.shares[name] or target.shares[name] for name in entries}
    limits = [most_effective_samples(entries[name], share, limits=count) for name, share in shares.items() if share < 1]
    if 0 < found.high < 1:
        limits.append(most_effective_samples(found.turns, found.high, target.sides.between, limits=count))
    if not limits:
        return {}
    most = min(limits) * made / found.picoseconds
    limit = {name: pairs(crossed, count) for name, crossed in entries.items()}
    away = max((1 - share) * found.picoseconds / limit[name] for name, share in shares.items())
    apart = max(1, round(EVERY * sum(part[..., 0].size for part in slow) / made))
    return {
        "crossings_as_dynamics": sum(target.sides.crossings(part[:, ::apart, 0]) for part in slow),
        "dynamics_picoseconds": found.picoseconds,
        "dynamics_crossings": found.turns,
        "dynamics_basin_crossings": dict(found.entries),
        "dynamics_ess_bound": most,
        "states_seconds_expected": away * seconds / made,
    }


def published_ess(slow: Float[np.ndarray, "chains frames"]) -> float:
    """The published protocol: the ESS of the slowest coordinate of one chain, from its autocorrelation alone.

    Summed over the chains, which share the machine. It knows nothing of what a chain has not seen: a stuck chain may
    have a large one.
    """
    if slow.shape[1] < 4:
        return 0.0
    times = [autocorrelation_time(chain[None]) for chain in slow]
    return float(sum(slow.shape[1] / time for time in times if np.isfinite(time) and time > 0))


def until_all(words: Sequence[np.ndarray], seconds: Sequence[np.ndarray], wanted: Sequence[str]) -> float | None:
    """Wall-clock seconds until every wanted state had been in some chain of some process; None if that never was."""
    first = dict.fromkeys(wanted, np.inf)
    for part, times in zip(words, seconds, strict=True):
        for name in wanted:
            there = np.flatnonzero((part == name).any(axis=0))
            if len(there):
                first[name] = min(first[name], float(times[there[0]]))
    last = max(first.values(), default=np.inf)
    return float(last) if np.isfinite(last) else None


def _told(records: Sequence[Record]) -> dict[str, Any]:
    """What the processes say of themselves."""
    facts = [record.facts for record in records]
    found: dict[str, Any] = {}
    rates = [f["acceptance"] for f in facts if f.get("acceptance") is not None]
    found["acceptance"] = float(np.mean(rates)) if rates else None
    for name in ("picoseconds", "evaluations"):
        if all(name in f for f in facts):
            found[name] = sum(f[name] for f in facts)
    for name in ("platform", "checkpoint", "rungs"):
        if name in facts[0]:
            found[name] = facts[0][name]
    return found


def _curves(records: Sequence[Record], slow: Sequence[np.ndarray]) -> dict[str, Any]:
    """Of the slowest coordinate: the mean autocorrelation of the chains, and one chain against the time."""
    longest = int(np.argmax([len(record.seconds) for record in records]))
    record, chains = records[longest], slow[longest][..., 0]
    frames = chains.shape[1]
    if frames < 4:
        return {}
    keep = np.unique(np.linspace(0, frames - 1, min(POINTS, frames)).astype(int))
    step = (record.end - record.setup) / frames
    correlation = autocorrelation(chains)[: frames // 2]
    lags = np.unique(np.geomspace(1, len(correlation), min(POINTS // 3, len(correlation))).astype(int)) - 1
    return {
        "trace": {"seconds": record.seconds[keep].round(3).tolist(), "slow": chains[0, keep].round(4).tolist()},
        "autocorrelation": {"seconds": (lags * step).round(5).tolist(), "value": correlation[lags].round(4).tolist()},
    }


def autocorrelation(chains: Float[np.ndarray, "chains frames"]) -> Float[np.ndarray, " frames"]:
    """The mean normalised autocorrelation about the mean of all chains; 1 at lag 0, or 0 if nothing moves."""
    x = chains - chains.mean()
    frames = x.shape[1]
    power = np.abs(np.fft.rfft(x, 2 * frames, axis=1)) ** 2
    products = np.fft.irfft(power, axis=1)[:, :frames] / np.arange(frames, 0, -1)
    mean = products.mean(axis=0)
    return mean / mean[0] if mean[0] > 0 else np.zeros(frames)
