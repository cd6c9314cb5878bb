"""Training runs that take seconds."""

from dataclasses import replace

from safetensors.torch import load_file

from timewarp.assemble.training import Training
from timewarp.flow.cartesian import CartesianConfig
from timewarp.flow.internal import InternalConfig
from timewarp.flow.losses import Objective
from timewarp.flow.tokens import FEATURES
from timewarp.training.fit import FitConfig

INTERNAL = InternalConfig(width=8, heads=2, encoder_layers=1, torsion_layers=1, harmonics=3)
COUPLED = replace(INTERNAL, velocities=1, velocity_width=8, velocity_heads=2, velocity_blocks=1)
CARTESIAN = CartesianConfig(FEATURES, blocks=1, width=8, layers=1, value=4, feedforward=8, hidden=8)
FIT = FitConfig(learning_rate=1e-2, warm_up=2, report=2, ema=10.0)
OWN = Objective(acceptance=0.1, entropy=0.05)


def run_of(data, out, model=INTERNAL, **changes):
    asked = {"molecules": 2, "frames": 4, "validate": 6, "measure": 4, "validation": ("AG",), "own_samples": 3}
    return Training(data=data, out=out, name="tiny", model=model, fit=FIT, **asked | changes)


def state_of(out):
    return load_file(out / "state.safetensors")
