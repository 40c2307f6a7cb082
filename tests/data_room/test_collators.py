"""A batch is what the processor would make of its trials, plus augmentation, and never depends on the company."""

import numpy as np
import pytest
import torch

from bit_speech.data.augmentation import Augmentation
from bit_speech.data.collators import CTCCollator
from bit_speech.data.statistics import block_statistics, session_statistics
from processing_bit.feature_extraction_bit import BITFeatureExtractor
from processing_bit.processing_bit import BITProcessor
from processing_bit.tokenization_phoneme import PhonemeTokenizer

SESSIONS = ["p.2024.01.01", "p.2024.01.08"]


def make_processor(**changes):
    settings = {"participants": {"p": 4}, "sessions": SESSIONS, "normalization": "block"} | changes
    return BITProcessor(BITFeatureExtractor(**settings), PhonemeTokenizer())


NOISE = Augmentation(white_noise_sd=1.0, constant_offset_sd=0.2, random_cut_max_bins=3)


def test_without_augmentation_the_batch_equals_the_processor(trials):
    rows = trials()
    processor, statistics = make_processor(), block_statistics(rows)
    batch = CTCCollator(processor, statistics=statistics)(rows[:5])
    expected = processor(
        [row["features"] for row in rows[:5]],
        phonemes=[row["phonemes"] for row in rows[:5]],
        participant_id="p",
        session_id=[row["session_id"] for row in rows[:5]],
        statistics=[statistics[(row["session_id"], row["block_index"])] for row in rows[:5]],
        return_tensors="pt",
    )
    assert set(batch) == set(expected)
    for key, value in expected.items():
        assert torch.equal(batch[key], value) and batch[key].dtype == value.dtype, key


def test_rows_of_a_dataset_work_like_dictionaries(dataset, trials):
    rows = trials()
    collate = CTCCollator(make_processor(), NOISE, block_statistics(rows))
    data = dataset(rows)
    from_dataset, from_rows = collate([data[i] for i in range(4)]), collate(rows[:4])
    assert all(torch.equal(from_dataset[key], value) for key, value in from_rows.items())


def test_channels_are_selected_before_they_are_normalised(trials):
    rows = trials()
    processor = make_processor(
        participants={"p": 2}, feature_kinds=["threshold_crossings"], smoothing_sd_bins=0, sessions=[]
    )
    mean, std = block_statistics(rows)[("p.2024.01.01", 1)]
    batch = CTCCollator(processor, statistics={("p.2024.01.01", 1): (mean, std)})(rows[:1])
    expected = (rows[0]["features"][:, :2] - mean[:2]) / std[:2]
    np.testing.assert_allclose(batch["input_features"][0].numpy(), expected, rtol=1e-5, atol=1e-6)
    selected = CTCCollator(processor, statistics={("p.2024.01.01", 1): (mean[:2], std[:2])})(rows[:1])
    assert torch.equal(selected["input_features"], batch["input_features"])
    assert "session_index" not in batch


@pytest.mark.parametrize("given", [True, False])
def test_session_statistics_come_from_the_call_or_from_the_extractor(trials, given):
    rows = trials()
    processor = make_processor(normalization="session", smoothing_sd_bins=0)
    statistics = session_statistics(rows)
    if not given:
        processor.feature_extractor.fit_session_statistics(
            {session: [row["features"] for row in rows if row["session_id"] == session] for session in SESSIONS}
        )
    batch = CTCCollator(processor, statistics=statistics if given else None)(rows[:1])
    mean, std = statistics["p.2024.01.01"]
    np.testing.assert_allclose(
        batch["input_features"][0].numpy(), (rows[0]["features"] - mean) / std, rtol=1e-4, atol=1e-5
    )


def test_what_a_trial_meets_depends_on_seed_epoch_and_trial_alone(trials):
    rows = trials()
    statistics = block_statistics(rows)

    def features_of_first(batch, seed=0, epoch=0):
        collate = CTCCollator(make_processor(), NOISE, statistics, seed=seed)
        collate.set_epoch(epoch)
        result = collate(batch)
        position = next(i for i, row in enumerate(batch) if row is rows[0])
        return result["input_features"][position][result["attention_mask"][position]]

    alone = features_of_first([rows[0]])
    assert torch.equal(alone, features_of_first([rows[8], rows[0], rows[4]]))
    assert not torch.equal(alone, features_of_first([rows[0]], epoch=1)[: len(alone)])
    assert not torch.equal(alone, features_of_first([rows[0]], seed=1)[: len(alone)])


def test_padding_stays_zero_under_noise(trials):
    batch = CTCCollator(make_processor(), NOISE, block_statistics(trials()))(trials()[:6])
    assert (batch["input_features"][~batch["attention_mask"]] == 0).all()
    assert not batch["attention_mask"].all()


@pytest.mark.parametrize("before", [True, False])
def test_noise_goes_in_before_or_after_smoothing(trial, before):
    row = trial(bins=4000, features=np.zeros((4000, 4), np.float32))
    processor = make_processor(normalization="none", smoothing_sd_bins=2.0)
    collate = CTCCollator(processor, Augmentation(white_noise_sd=1.0, noise_before_smoothing=before))
    noise = collate([row])["input_features"][0].numpy()
    # A Gaussian of 2 bins leaves 1 / sqrt(2 * sqrt(pi) * 2) of the deviation of white noise.
    assert noise.std() == pytest.approx(0.375 if before else 1.0, rel=0.05)


def test_masked_bins_stay_exactly_zero_after_smoothing(trial):
    collate = CTCCollator(
        make_processor(normalization="none"), Augmentation(time_mask_ratio=0.5, time_mask_max_bins=20, white_noise_sd=1)
    )
    masked = (collate([trial(bins=100)])["input_features"][0] == 0).all(dim=1)
    assert int(masked.sum()) == 50


def test_labels_come_from_phonemes_or_from_text(trial):
    collate = CTCCollator(make_processor(normalization="none"))
    labels = collate([trial(), trial(trial=1, phonemes=None, text="Hi.")])["labels"]
    assert labels.dtype == torch.int64 and labels.shape == (2, 5)
    assert labels[1].tolist() == [16, 6, 40, -100, -100]
    assert "labels" not in collate([trial(text=None, phonemes=None)])


def test_workers_that_outlive_an_epoch_see_the_next_one(dataset, trials):
    rows = trials()
    data = dataset(rows)
    collate = CTCCollator(make_processor(), NOISE, block_statistics(rows))
    loader = torch.utils.data.DataLoader(data, batch_size=9, collate_fn=collate, num_workers=1, persistent_workers=True)
    epochs = []
    for epoch in (0, 1):
        collate.set_epoch(epoch)
        epochs.append(next(iter(loader))["input_features"])
    del loader
    for epoch, batch in enumerate(epochs):
        collate.set_epoch(epoch)
        assert torch.equal(batch, collate([data[i] for i in range(9)])["input_features"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"participant_id": "q"}, "one batch holds the participants p, q"),
        (
            {"session_id": "p.2030.01.01"},
            "session p.2030.01.01, block 1, trial 1: unknown session; the processor knows",
        ),
        ({"text": None, "phonemes": None}, "trial 1: no text and no phonemes, unlike others of its batch"),
    ],
)
def test_a_trial_that_does_not_fit_is_named(trial, changes, message):
    with pytest.raises(ValueError, match=message):
        CTCCollator(make_processor(normalization="none"))([trial(), trial(trial=1) | changes])


def test_an_unknown_participant_is_named(trial):
    with pytest.raises(ValueError, match="trial 0: unknown participant 'q'; the processor knows p"):
        CTCCollator(make_processor(normalization="none"))([trial() | {"participant_id": "q"}])


def test_normalising_by_block_needs_statistics_of_every_block(trial):
    with pytest.raises(ValueError, match="a batch is not a block: pass statistics=block_statistics"):
        CTCCollator(make_processor())
    with pytest.raises(ValueError, match="block 9, trial 0: no statistics for block 9 of session 'p.2024.01.01'"):
        CTCCollator(make_processor(), statistics=block_statistics([trial()]))([trial(block=9)])
    with pytest.raises(ValueError, match="no statistics for session 'p.2024.01.01'"):
        CTCCollator(make_processor(normalization="session"))([trial()])
    with pytest.raises(ValueError, match="an empty batch"):
        CTCCollator(make_processor(normalization="none"))([])
