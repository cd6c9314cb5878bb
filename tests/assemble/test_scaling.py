"""How the acceptance of unseen peptides grows with training peptides and with steps: curves, and what they foretell."""

import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit

from timewarp.assemble.train import trained
from timewarp.assemble.training import Training
from timewarp.flow.losses import Objective
from timewarp.training.fit import FitConfig

DATA = os.environ.get("SCALING_DATA")
OUT = os.environ.get("SCALING_OUT")
HELD = os.environ.get("SCALING_HELD", "HS LI PS WR").split()
PEPTIDES = [int(n) for n in os.environ.get("SCALING_PEPTIDES", "10 30 100").split()]
STEPS = [int(n) for n in os.environ.get("SCALING_STEPS", "375 750 1500 3000").split()]
MIDDLE = int(os.environ.get("SCALING_MIDDLE", "1500"))  # steps with which peptides are varied
CELLS = sorted({(n, MIDDLE) for n in PEPTIDES} | {(max(PEPTIDES), steps) for steps in STEPS})
wanted = pytest.mark.skipif(not (DATA and OUT), reason="SCALING_DATA: shards of `timewarp data`; SCALING_OUT: for runs")


def subset(count):
    """A directory with links to the held-out shards and to `count` others: a larger one has those of a smaller."""
    shards = sorted(path for path in Path(DATA).glob("*.safetensors"))
    others = [path for path in shards if path.stem not in HELD]
    random.Random(0).shuffle(others)
    if len(others) < count:
        pytest.fail(f"expected {count} shards that are not held out in {DATA}, found {len(others)}")
    folder = Path(OUT) / f"data-{count}"
    folder.mkdir(parents=True, exist_ok=True)
    for path in [*others[:count], *(path for path in shards if path.stem in HELD)]:
        link = folder / path.name
        if not link.exists():
            link.symlink_to(path.resolve())
    return folder


def straight(sizes, shares):
    """(Intercept, slope) of the odds' logarithm against log10 of the size, and its largest residual."""
    slope, intercept = np.polyfit(np.log10(sizes), logit(shares), 1)
    return intercept, slope, np.abs(logit(shares) - intercept - slope * np.log10(sizes)).max()


@wanted
@pytest.mark.long
@pytest.mark.parametrize(("peptides", "steps"), CELLS)
def test_a_network_from_nothing(peptides, steps):
    """Trains from random weights, and leaves a row in SCALING_OUT; goes on where it stopped."""
    out = Path(OUT) / f"{peptides}-{steps}"
    run = Training(
        data=subset(peptides), out=out, name="flow", validation=tuple(HELD), steps=steps, validate=10**9, seed=8,
        molecules=min(16, peptides), frames=-(-256 // min(16, peptides)),
        objective=Objective(likelihood=1.0, spread=1.0), fit=FitConfig(learning_rate=8e-4, horizon=steps),
    )  # fmt: skip
    last = trained(run)["metrics"]
    each = last["each"]
    assert set(each) <= set(HELD)
    row = {
        "peptides": peptides,
        "steps": steps,
        "acceptance": last["validation"],
        "each": each,
        "seconds": last["seconds"],
    }
    (Path(OUT) / f"{peptides}-{steps}.json").write_text(json.dumps(row))
    print(f"\n{peptides} peptides, {steps} steps, {last['seconds']:.0f} s: {last['validation']:.1%}", flush=True)


@wanted
@pytest.mark.long
def test_what_ten_times_more_would_give():
    """Prints the rows, and the curves through them."""
    rows = [json.loads(path.read_text()) for path in Path(OUT).glob("*-*.json")]
    for row in sorted(rows, key=lambda row: (row["peptides"], row["steps"])):
        each = " ".join(f"{name} {100 * share:.0f}" for name, share in row["each"].items())
        print(f"\n{row['peptides']:4} peptides {row['steps']:5} steps {row['acceptance']:.1%}  ({each})", end="")
    for name, other, most in (("peptides", "steps", MIDDLE), ("steps", "peptides", max(PEPTIDES))):
        line = sorted((row[name], row["acceptance"]) for row in rows if row[other] == most)
        sizes, shares = np.array(line).T
        intercept, slope, off = straight(sizes, shares)
        more = expit(intercept + slope * np.log10(10 * sizes[-1]))
        print(
            f"\nodds of acceptance grow by e^{slope:.2f} for ten times as many {name} (largest residual {off:.2f}): "
            f"{more:.1%} at {10 * sizes[-1]:.0f}",
            end="",
        )
        assert len(line) >= 2
    print()


def test_the_curve_is_found_again():
    sizes = np.array([10, 30, 100, 300])
    intercept, slope, off = straight(sizes, expit(-1.0 + 0.6 * np.log10(sizes)))
    assert (intercept, slope) == pytest.approx((-1.0, 0.6))
    assert off < 1e-9
