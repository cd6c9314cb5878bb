"""Laws of training pairs: shapes are kept, the pose means nothing, and neither of a pair comes first."""

import pytest
import torch

from timewarp.assemble.directory import claimed
from timewarp.assemble.pairs import SHIFT, TURN, PairBatch, Pairs, nearby
from timewarp.claim import DirectoryRefused
from timewarp.flow.cartesian import Cartesian, CartesianConfig
from timewarp.flow.cartesian_rotation import randomly_rotated
from timewarp.flow.tokens import FEATURES
from timewarp.settings import SettingsError

CONFIG = CartesianConfig(FEATURES, blocks=1, width=8, layers=1, value=4, feedforward=8, hidden=8)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def shapes(count, seed=0, spread=0.05):
    """Pairs of like shapes, centred, each in a pose of its own."""
    rng = seeded(seed)
    base = 0.3 * torch.randn(count, 1, 7, 3, generator=rng, dtype=torch.float64)
    x = base + spread * torch.randn(count, 2, 7, 3, generator=rng, dtype=torch.float64)
    x = x - x.mean(-2, keepdim=True)
    return torch.stack([randomly_rotated(part, rng) for part in x.unbind(1)], 1)


def moves(count, seed=1):
    return torch.randn(count, 2, 3, generator=seeded(seed), dtype=torch.float64)


def hand(x):
    return torch.linalg.det(x[..., :3, :] - x[..., 3:4, :])


def test_shapes_and_hands_are_kept_and_the_pose_of_the_first():
    before = shapes(50)
    after = nearby(before, moves(50))
    torch.testing.assert_close(after[:, 0], before[:, 0])
    for x, y in zip(before.flatten(0, 1), after.flatten(0, 1), strict=True):
        torch.testing.assert_close(torch.cdist(x, x), torch.cdist(y, y), atol=1e-6, rtol=0)
    torch.testing.assert_close(hand(before), hand(after))


def test_unmoved_the_second_lies_on_the_first_as_well_as_it_can():
    """No rotation nearby brings it closer, also where the mirror image would lie closer still."""
    near = nearby(shapes(40, spread=0.2), torch.zeros(40, 2, 3, dtype=torch.float64))
    first, second = near.unbind(1)
    least = (first - second).square().sum((1, 2))
    for seed in range(30):
        turn = torch.linalg.matrix_exp(0.05 * torch.randn(3, 3, generator=seeded(seed), dtype=torch.float64).triu(1))
        turn = torch.linalg.qr(turn)[0]
        turn = turn * turn.diagonal().sign()
        assert ((first - second @ turn.mT).square().sum((1, 2)) >= least - 1e-12).all()
    apart = shapes(40, spread=0.0)
    assert (apart[:, 0] - apart[:, 1]).abs().max() > 0.1
    torch.testing.assert_close(*nearby(apart, torch.zeros(40, 2, 3, dtype=torch.float64)).unbind(1))


def test_moves_have_the_sizes_that_are_named():
    """Of two like shapes the relative pose is known: its rotation and its shift are Gaussians of these sizes."""
    near = nearby(shapes(4000, spread=0.0), moves(4000))
    first, second = near.unbind(1)
    shift = second.mean(1)
    turn = torch.linalg.lstsq(first, second - shift[:, None]).solution
    angles = 0.5 * torch.stack([turn[:, k, j] - turn[:, j, k] for j, k in ((2, 1), (0, 2), (1, 0))], 1)
    assert shift.std().item() == pytest.approx(SHIFT, rel=0.05)
    assert angles.std().item() == pytest.approx(TURN, rel=0.05)


def test_neither_of_a_pair_comes_first(shards):
    """Distances of the first have the same distribution as those of the second, though a walker goes one way."""
    pairs = Pairs.read(shards / "GG.safetensors")
    marked = Pairs(
        pairs.sequence, pairs.features, pairs.frames * torch.tensor([1.0, 2.0]).view(2, 1, 1, 1), pairs.shard
    )
    batch = PairBatch.draw([marked], 1, 2000, seeded(0))
    size = torch.stack([batch.start.std((1, 2)), (batch.end - batch.end.mean(1, keepdim=True)).std((1, 2))], 1)
    assert (size.amax(1) > 1.6 * size.amin(1)).all()  # one is from the first kept frame, one from the next
    assert (size[:, 0] > size[:, 1]).float().mean().item() == pytest.approx(0.5, abs=0.04)


def test_padding_changes_nothing_and_processes_share_a_batch(shards):
    pool = [Pairs.read(shards / f"{name}.safetensors") for name in ("GG", "AG")]
    assert len(pool[0]) == 8
    whole = PairBatch.draw(pool, 2, 6, seeded(3))
    assert whole.real.sum(1).unique().tolist() == [17, 20]
    parts = [PairBatch.draw(pool, 2, 6, seeded(3), (rank, 2)) for rank in (0, 1)]
    both = torch.stack([p.end.unflatten(0, (2, 3)) for p in parts], 2).flatten(0, 2)
    assert torch.equal(both, whole.end)
    flow = Cartesian(CONFIG)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=seeded(4)))
        small = whole.real.sum(1) == 17
        cut = PairBatch(*(getattr(whole, name)[small][:, :17] for name in ("features", "start", "end", "real")))
        alone = flow(cut.features, cut.start).log_prob
        found = flow(whole.features, whole.start, whole.real)
        from timewarp.state import State

        v = torch.randn(len(whole.real), 20, 3, generator=seeded(5)) * whole.real[..., None]
        torch.testing.assert_close(
            found.log_prob(State(whole.end, v))[small], alone(State(cut.end, v[small][:, :17])), atol=1e-3, rtol=1e-5
        )
    assert cut.terms(flow, seeded(6)).parts["transition"].shape == (6,)


def test_a_shard_of_one_frame_a_walker_has_no_pairs(shards, monkeypatch):
    from timewarp.assemble import pairs

    class One(pairs.Shard):
        @classmethod
        def read(cls, path):
            shard = super().read(path)
            shard.facts["recipe"]["walkers"] = len(shard.positions)
            return shard

    monkeypatch.setattr(pairs, "Shard", One)
    with pytest.raises(SettingsError, match="expected at least 2 frames a walker to make pairs of, found 1"):
        Pairs.read(shards / "GG.safetensors")


def test_a_directory_is_claimed_by_one_run_at_a_time(tmp_path):
    out = tmp_path / "run"
    with claimed(out, ("metrics.csv",), False):
        (out / "metrics.csv").touch()
        with (
            pytest.raises(DirectoryRefused, match="is in use by another run; wait for it"),
            claimed(out, ("metrics.csv",), True),
        ):
            pass
    with claimed(out, ("metrics.csv",), True):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(DirectoryRefused, match="is a file"), claimed(tmp_path / "file", (), False):
        pass
