import pytest
import torch

from modeling_bit.masking_bit import sample_span_mask

RATIOS, SPANS = [0.0, 0.003, 0.15, 0.5, 0.85, 1.0], [1, 3, 15, 100]


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("max_span", SPANS)
def test_each_trial_is_masked_as_much_as_asked_to_within_one_frame(ratio, max_span):
    lengths = torch.tensor([60, 37, 8, 1, 0])
    for seed in range(20):
        mask = sample_span_mask(lengths, 60, ratio, max_span, torch.Generator().manual_seed(seed))
        for masked, length in zip(mask.sum(dim=1).tolist(), lengths.tolist(), strict=True):
            assert abs(masked - ratio * length) < 1 and (ratio < 1 or masked == length)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("max_span", SPANS)
def test_the_realised_share_of_many_trials_is_the_asked_one_to_within_one_per_cent_even_of_short_ones(ratio, max_span):
    lengths = 1 + torch.arange(4000) % 9
    mask = sample_span_mask(lengths, 9, ratio, max_span, trial_seeds=torch.arange(4000))
    assert mask.sum().item() / lengths.sum().item() == pytest.approx(ratio, abs=0.01)


def test_padding_is_never_masked():
    lengths = torch.tensor([20, 7])
    for _ in range(20):
        mask = sample_span_mask(lengths, 20, 0.6, 5)
        assert not mask[1, 7:].any()


def test_the_same_seed_gives_the_same_mask_and_another_seed_another():
    lengths = torch.full((4,), 50)
    first, again, other = (
        sample_span_mask(lengths, 50, 0.5, 15, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_trials_mask_depends_on_its_own_seed_and_length_alone():
    lengths, seeds = torch.tensor([50, 12, 31, 12]), torch.tensor([4, -9, 2**62, 5])
    together = sample_span_mask(lengths, 70, 0.5, 5, trial_seeds=seeds)
    for i, length in enumerate(lengths.tolist()):
        alone = sample_span_mask(lengths[i : i + 1], length, 0.5, 5, trial_seeds=seeds[i : i + 1])
        assert torch.equal(alone[0], together[i, :length])
    assert not torch.equal(together[1], together[3])


def test_masks_of_neighbouring_seeds_have_nothing_in_common():
    mask = sample_span_mask(torch.full((2000,), 40), 40, 0.5, 4, trial_seeds=torch.arange(2000)).float() - 0.5
    assert (mask.mean(dim=0)).abs().max() < 0.06  # every frame equally often
    assert (mask[1:] * mask[:-1]).mean(dim=0).abs().max() < 0.03


def test_trials_of_a_batch_get_different_masks():
    mask = sample_span_mask(torch.full((8,), 60), 60, 0.5, 15)
    assert len({tuple(row.tolist()) for row in mask}) == 8


def test_every_frame_is_masked_equally_often():
    torch.manual_seed(0)
    mask = sample_span_mask(torch.full((4000,), 20), 20, 0.5, 4).float().mean(dim=0)
    assert (mask - 0.5).abs().max() < 0.05


def test_spans_are_drawn_uniformly_up_to_the_longest():
    torch.manual_seed(0)
    mask = sample_span_mask(torch.full((2000,), 400), 400, 0.05, 4)
    runs = []
    for row in mask.tolist():
        run = 0
        for value in [*row, False]:
            if value:
                run += 1
            elif run:
                runs.append(run)
                run = 0
    # At 5 % spans seldom touch: lengths 1 to 4 come about equally often, longer runs seldom.
    share = [runs.count(n) / len(runs) for n in (1, 2, 3, 4)]
    assert all(0.18 < s < 0.32 for s in share) and sum(share) > 0.93


@pytest.mark.parametrize("ratio, span, named", [(1.5, 3, "1.5"), (-0.1, 3, "-0.1"), (0.5, 0, "0")])
def test_impossible_values_are_named(ratio, span, named):
    with pytest.raises(ValueError, match=named):
        sample_span_mask(torch.tensor([5]), 5, ratio, span)


def test_seeds_are_one_for_each_trial():
    with pytest.raises(ValueError, match=r"\(1,\)"):
        sample_span_mask(torch.tensor([5, 6]), 6, 0.5, 2, trial_seeds=torch.tensor([1]))
