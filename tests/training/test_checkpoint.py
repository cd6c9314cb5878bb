"""A checkpoint comes back as it was, and one that cannot be used says why in one line."""

import json

import pytest
import torch

from timewarp.training.checkpoint import Checkpoint, CheckpointError

CARD = {"kind": "toy", "config": {"width": 3}, "units": "nm, kT", "data": {}, "metrics": {"loss": 1.5}}


def written(path):
    tensors = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor(3)}
    Checkpoint(tensors, CARD).save(path)
    return tensors


def test_what_is_saved_comes_back(tmp_path):
    tensors = written(tmp_path / "new" / "v1.2")
    found = Checkpoint.load(tmp_path / "new" / "v1.2")
    assert found.card == {"version": 1, **CARD}
    assert found.tensors.keys() == tensors.keys()
    assert all(torch.equal(found.tensors[k], tensors[k]) for k in tensors)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["v1.2.json", "v1.2.safetensors"]


def test_other_weights_have_another_fingerprint(tmp_path):
    tensors = written(tmp_path / "flow")
    saved = Checkpoint.load(tmp_path / "flow")
    assert saved.fingerprint == Checkpoint(tensors, {}).fingerprint
    changed = tensors["a"].clone()
    changed[0, 0] = torch.nextafter(changed[0, 0], torch.tensor(1.0))
    others = [tensors | {"a": changed}, tensors | {"c": tensors["b"]}, {"a": tensors["a"], "d": tensors["b"]}]
    others.append(tensors | {"a": tensors["a"].T})
    assert len({saved.fingerprint, *(Checkpoint(t, {}).fingerprint for t in others)}) == 5


def absent(path):
    path.with_name("flow.safetensors").unlink()


def truncated(path):
    weights = path.with_name("flow.safetensors")
    weights.write_bytes(weights.read_bytes()[:-3])


def garbled(path):
    path.with_name("flow.json").write_text("{")


def newer(path):
    path.with_name("flow.json").write_text(json.dumps({**CARD, "version": 2}))


def listed(path):
    path.with_name("flow.json").write_text("[]")


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        (absent, "expected the checkpoint file .*flow.safetensors, found none"),
        (truncated, "found damaged files"),
        (garbled, "found damaged files"),
        (newer, "expected a checkpoint of version 1 at .*, found 2"),
        (listed, "expected a checkpoint of version 1 at .*, found list"),
    ],
)
def test_a_fault_is_named(tmp_path, fault, complaint):
    written(tmp_path / "flow")
    fault(tmp_path / "flow")
    with pytest.raises(CheckpointError, match=complaint) as error:
        Checkpoint.load(tmp_path / "flow")
    assert "\n" not in str(error.value)
