import pytest
import torch

from modeling_bit.masking_bit import sample_span_mask


@pytest.mark.parametrize("ratio", [0.0, 0.15, 0.5, 0.85, 1.0])
@pytest.mark.parametrize("max_span", [1, 3, 15])
def test_each_trial_is_masked_exactly_as_much_as_asked(ratio, max_span):
    lengths = torch.tensor([60, 37, 8, 1, 0])
    mask = sample_span_mask(lengths, 60, ratio, max_span)
    assert mask.sum(dim=1).tolist() == [int(ratio * n + 0.5) for n in lengths.tolist()]


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
