import pytest
import torch

from timewarp.flow.warmth import AS_TRAINED, DEFENSIVE, Warmth


@pytest.mark.parametrize(
    ("temperatures", "shares", "said"),
    [
        ((0.0,), (1.0,), "positive"),
        ((1.0, float("inf")), (0.5, 0.5), "positive"),
        ((1.0, 2.0), (1.5, -0.5), "positive"),
        ((1.0, 2.0), (1.0,), "a share for each"),
        ((1.0, 2.0), (0.5, 0.4), "1 in all"),
    ],
)
def test_what_is_no_mixture_is_refused(temperatures, shares, said):
    with pytest.raises(ValueError, match=said):
        Warmth(temperatures, shares)


def test_one_temperature_is_no_mixture_and_takes_every_draw():
    assert not AS_TRAINED.mixed
    assert DEFENSIVE.mixed
    assert (AS_TRAINED.picked(torch.tensor([0.0, 0.5, 0.999])) == 1).all()


def test_the_numbers_between_two_sums_of_shares_pick_the_temperature_between_them():
    warmth = Warmth((1.0, 2.0, 4.0), (0.5, 0.25, 0.25))
    picked = warmth.picked(torch.tensor([0.0, 0.49, 0.5, 0.74, 0.75, 0.999]))
    assert picked.tolist() == [1.0, 1.0, 2.0, 2.0, 4.0, 4.0]


def test_a_defensive_mixture_bounds_the_weight_of_a_state_by_its_broadest_part():
    log_prob = torch.randn(4, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 10
    joined = DEFENSIVE.joined(log_prob)
    for part, share in zip(log_prob, DEFENSIVE.shares, strict=True):
        assert (joined >= part + torch.tensor(share, dtype=torch.float64).log() - 1e-12).all()
    whole = sum(share * part.exp() for part, share in zip(log_prob, DEFENSIVE.shares, strict=True))
    assert torch.allclose(joined, whole.log())
