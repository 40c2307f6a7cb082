import json
import math
import pickle
import shutil

import numpy as np
import pytest
import torch

from bit_speech.data import (
    CorpusBatchSampler,
    CorpusSource,
    PretrainingCorpus,
    build_corpus,
    corpus_loader,
    stream_corpus,
)
from bit_speech.data.corpus_building import cut
from bit_speech.data.writing import ShardWriter, dataset_card


def counts(session, block, trial, bins, channels=4, **changes):
    """A trial: integer crossings on the first half of the channels, power on the second."""
    rng = np.random.default_rng((block, trial, bins, sum(map(ord, session))))
    features = rng.poisson(2.0, (bins, channels)).astype(np.float32)
    features[:, channels // 2 :] += 0.25
    return {
        "participant_id": session.split(".")[0],
        "session_id": session,
        "block_index": block,
        "trial_index": trial,
        "split": "train",
        "features": features,
        "bin_size_ms": 20.0,
        "feature_kinds": ["threshold_crossings"] * (channels // 2) + ["spike_band_power"] * (channels // 2),
        "channel_areas": ["6v"] * channels,
        "species": "human",
        "task": "attempted_speech",
        "text": None,
        "phonemes": None,
        "source": "made here",
        "licence": "CC0-1.0",
    } | changes


def write(folder, trials):
    """Write trials as a converted folder: one shard per split and session."""
    shards = {}
    for trial in trials:
        shards.setdefault(f"{trial['split']}-{trial['session_id']}", []).append(trial)
    channels = trials[0]["features"].shape[1]
    for name, rows in shards.items():
        with ShardWriter(folder / "data" / f"{name}.parquet", channels) as writer:
            for row in rows:
                writer.add(row)
    numbers = dict.fromkeys(("num_trials", "num_bins", "num_sessions", "num_bytes"), 1)
    card = dataset_card(title="t", licence="CC0-1.0", description="d", num_channels=channels, splits={"train": numbers})
    (folder / "README.md").write_text(card, encoding="utf-8")
    return folder


@pytest.fixture
def person(tmp_path):
    trials = [
        counts(f"ann.2024.01.0{day}", block, trial, 10 + trial)
        for day in (1, 2)
        for block in (1, 2)
        for trial in range(3)
    ]
    held_out = [counts("ann.2024.01.02", 3, 0, 33, split="test")]
    return write(tmp_path / "person", trials + held_out), trials


@pytest.fixture
def monkey(tmp_path):
    facts = {"species": "macaque", "task": "reaching", "feature_kinds": ["threshold_crossings"] * 6}
    trials = [counts("mo.2023.05.01", 1, trial, 20, 6, **facts) for trial in range(4)]
    for trial in trials:
        trial["features"] = np.floor(trial["features"])
        trial["features"][:, 5] = 0  # a dead electrode
    return write(tmp_path / "monkey", trials), trials


@pytest.fixture
def corpus(person, monkey, tmp_path):
    sources = [CorpusSource(person[0]), CorpusSource(monkey[0], weight=2.0)]
    return PretrainingCorpus(build_corpus(sources, tmp_path / "corpus"), verify=True)


def test_an_item_is_the_trials_crossings_z_scored_over_its_block(corpus, person):
    block = [t for t in person[1] if (t["session_id"], t["block_index"]) == ("ann.2024.01.01", 2)]
    values = np.concatenate([t["features"][:, :2] for t in block])
    expected = (block[1]["features"][:, :2] - values.mean(0)) / values.std(0)
    position = [corpus.place(i)[1:] for i in range(len(corpus))].index(("ann.2024.01.01", 2, 1))
    item = corpus[position]
    assert item["participant_id"] == "ann"
    assert item["input_features"].dtype == np.float32
    np.testing.assert_allclose(item["input_features"], expected, atol=1e-5)


def test_a_dead_channel_is_zero(corpus):
    monkey = int(np.flatnonzero(corpus.dataset_index == 1)[0])
    assert (corpus[monkey]["input_features"][:, 5] == 0).all()


def test_whole_numbers_are_stored_in_one_byte_each(corpus, monkey):
    entry = corpus.manifest[1]
    assert (entry["dtype"], entry["exact"]) == ("uint8", True)
    assert entry["values"]["num_bytes"] == sum(t["features"].size for t in monkey[1])


@pytest.mark.parametrize(
    ("change", "dtype"),
    [(lambda x: x + 0.1, "float16"), (lambda x: x + 3000.1, "float32"), (lambda x: x * 9e4, "float32")],
)
def test_other_values_are_rounded_only_where_that_is_far_below_their_noise(tmp_path, change, dtype):
    trials = [counts("p.2024.01.01", 1, t, 50) for t in range(2)]
    for trial in trials:
        trial["features"] = change(trial["features"]).astype(np.float32)
    corpus = PretrainingCorpus(build_corpus([CorpusSource(write(tmp_path / "in", trials))], tmp_path / "out"))
    values = np.concatenate([t["features"][:, :2] for t in trials])
    assert corpus.manifest[0]["dtype"] == dtype
    z = (trials[0]["features"][:, :2] - values.mean(0, dtype=np.float64)) / values.std(0, dtype=np.float64)
    np.testing.assert_allclose(corpus[0]["input_features"], z, atol=0.01)


def test_participants_come_in_the_order_of_a_models_configuration(corpus):
    from configuration_bit.configuration_bit import BITConfig

    assert corpus.participants == {"ann": 2, "mo": 6}
    assert list(BITConfig(participants=dict(corpus.participants)).participants) == list(corpus.participants)


def test_held_out_trials_stay_out_unless_asked_for_and_that_is_recorded(corpus, person, tmp_path):
    assert 33 not in corpus.num_bins
    assert corpus.settings["splits"] == ["train"]
    full = PretrainingCorpus(build_corpus([CorpusSource(person[0])], tmp_path / "full", include_held_out=True))
    assert 33 in full.num_bins
    assert "Splits: train, validation, test" in full.table()


def test_the_manifest_says_whose_data_how_much_and_under_which_licence(corpus):
    table = corpus.table()
    assert "| monkey.mo | mo | macaque | reaching | 6 |" in table
    assert "made here | CC0-1.0" in table
    assert math.isclose(corpus.hours, (2 * 2 * (10 + 11 + 12) + 80) * 0.02 / 3600)
    assert corpus.weights == [1.0, 2.0]


def test_a_long_recording_is_cut_into_equal_pieces_that_cover_it(tmp_path):
    folder = write(tmp_path / "in", [counts("p.2024.01.01", 1, 0, 103)])
    corpus = PretrainingCorpus(build_corpus([CorpusSource(folder)], tmp_path / "out", segment_s=1.0))
    whole = PretrainingCorpus(build_corpus([CorpusSource(folder)], tmp_path / "whole"))
    assert corpus.num_bins.tolist() == [34, 35, 34]
    pieces = np.concatenate([corpus[i]["input_features"] for i in range(3)])
    np.testing.assert_array_equal(pieces, whole[0]["input_features"])


@pytest.mark.parametrize(("bins", "longest", "overlap"), [(1, 5, 0), (5, 5, 2), (6, 5, 2), (1000, 7, 3), (999, 50, 49)])
def test_pieces_cover_a_recording_and_are_never_too_long(bins, longest, overlap):
    pieces = cut(bins, longest, overlap)
    assert pieces[0][0] == 0
    assert sum(pieces[-1]) == bins
    assert max(length for _, length in pieces) <= longest
    for (start, length), (following, _) in zip(pieces, pieces[1:]):
        assert start + length - following == overlap


def test_a_batch_equals_its_items_padded_with_zeros(corpus):
    batch = corpus.batch([2, 0])
    assert batch["input_features"].shape == (2, 12, 2)
    assert batch["attention_mask"].sum(1).tolist() == [12, 10]
    assert batch["participant_index"].tolist() == [0, 0]
    np.testing.assert_array_equal(batch["input_features"][1, :10], corpus[0]["input_features"])
    assert (batch["input_features"][1, 10:] == 0).all()


def test_a_batch_gives_the_counts_behind_its_z_scores_when_asked(corpus):
    batch = corpus.batch([0, 1], with_counts=True)
    assert (batch["labels"] == batch["labels"].round()).all() and batch["labels"].min() == 0
    assert not batch["labels"][~batch["attention_mask"]].any()
    for values, counts, real in zip(batch["input_features"], batch["labels"], batch["attention_mask"]):
        values, counts = values[real], counts[real]
        for channel in range(values.shape[1]):  # a z-score is a line through the counts
            if values[:, channel].std() > 0:
                assert np.corrcoef(values[:, channel], counts[:, channel])[0, 1] == pytest.approx(1, abs=1e-5)


def test_a_batch_of_two_participants_is_refused(corpus):
    with pytest.raises(ValueError, match="ann, mo"):
        corpus.batch([0, len(corpus) - 1])


def test_a_proportional_epoch_takes_every_item_once_in_batches_of_one_dataset(corpus):
    sampler = CorpusBatchSampler(corpus.num_bins, corpus.dataset_index, batch_size=3)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert sorted(i for batch in batches for i in batch) == list(range(len(corpus)))
        assert all(len(set(corpus.dataset_index[batch])) == 1 for batch in batches)
        assert len(batches) == len(sampler)


def test_the_temperature_moves_the_shares_from_proportional_to_equal():
    datasets = np.repeat([0, 1], [90, 10])
    shares = [
        CorpusBatchSampler(np.full(100, 10), datasets, 1, temperature=t).batches_per_epoch.tolist()
        for t in (1.0, 2.0, math.inf)
    ]
    assert shares == [[90, 10], [75, 25], [50, 50]]


def test_a_weight_scales_the_share_of_its_dataset():
    sampler = CorpusBatchSampler(np.full(100, 10), np.repeat([0, 1], 50), 1, weights=[1.0, 3.0])
    assert sampler.batches_per_epoch.tolist() == [25, 75]


def test_no_item_comes_again_before_all_of_its_dataset_came():
    sampler = CorpusBatchSampler(np.full(14, 10), np.repeat([0, 1], [4, 10]), 1, temperature=math.inf)
    drawn = []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        # Within an epoch the order is shuffled over passes; over whole passes every item is drawn equally often.
        drawn += [i for batch in sampler for i in batch if i < 4]
    assert np.bincount(drawn).tolist() == [7, 7, 7, 7]
    large = [i for epoch in range(10) for batch in epoch_batches(sampler, epoch) for i in batch if i >= 4]
    assert set(np.bincount(large)[4:]) == {7}


def epoch_batches(sampler, epoch, first=0):
    sampler.set_epoch(epoch, first)
    return list(sampler)


def test_items_of_like_length_share_a_batch():
    lengths = np.random.default_rng(0).integers(10, 500, 256)
    sampler = CorpusBatchSampler(lengths, np.zeros(256, int), batch_size=16)
    padded = sum(len(batch) * lengths[batch].max() for batch in sampler)
    assert padded < 1.15 * lengths.sum()


def test_two_processes_share_the_batches_of_one(corpus):
    def sampler(size, **rank):
        return CorpusBatchSampler(corpus.num_bins, corpus.dataset_index, size, seed=3, **rank)

    alone = epoch_batches(sampler(4), 1)
    first, second = (epoch_batches(sampler(2, num_processes=2, process_index=rank), 1) for rank in (0, 1))
    for whole, a, b in zip(alone, first, second, strict=True):
        assert sorted(whole) == sorted(a + b)


def test_an_epoch_resumes_at_any_batch_without_reading_those_before(corpus):
    make = lambda: CorpusBatchSampler(corpus.num_bins, corpus.dataset_index, 2, temperature=3.0)  # noqa: E731
    whole = epoch_batches(make(), 5)
    resumed = make()
    assert epoch_batches(resumed, 5, first=3) == whole[3:]
    assert epoch_batches(resumed, 6) == epoch_batches(make(), 6)


def test_the_loader_gives_the_batches_of_its_sampler(corpus):
    sampler = CorpusBatchSampler(corpus.num_bins, corpus.dataset_index, 4)
    batches = list(corpus_loader(corpus, sampler))
    for batch, indices in zip(batches, sampler, strict=True):
        assert torch.equal(batch["input_features"], corpus.batch(indices)["input_features"])
    assert set(batches[0]) == {"input_features", "attention_mask", "participant_index"}


def test_another_process_gets_the_corpus_without_its_values(tmp_path):
    trials = [counts("p.2024.01.01", 1, t, 5000) for t in range(4)]
    corpus = PretrainingCorpus(build_corpus([CorpusSource(write(tmp_path / "in", trials))], tmp_path / "out"))
    sent = pickle.dumps(corpus)
    assert len(sent) < corpus.manifest[0]["values"]["num_bytes"] / 4
    np.testing.assert_array_equal(pickle.loads(sent)[3]["input_features"], corpus[3]["input_features"])


def test_a_selection_keeps_its_items_and_counts_its_hours(corpus):
    part = corpus.select([len(corpus) - 1, 1])
    np.testing.assert_array_equal(part[1]["input_features"], corpus[1]["input_features"])
    assert part.participants == corpus.participants
    assert math.isclose(part.hours, (20 + 11) * 0.02 / 3600)
    assert [entry["num_segments"] for entry in part.manifest] == [1, 1]
    assert part.place(0) == corpus.place(len(corpus) - 1)


def test_a_selection_knows_only_the_participants_of_whom_it_has_items(corpus):
    last = list(corpus.participants)[-1]
    only = corpus.select(np.flatnonzero([corpus[i]["participant_id"] == last for i in range(len(corpus))]))
    assert list(only.participants) == [last]
    assert only.batch([0])["participant_index"].tolist() == [0]


def test_a_second_build_keeps_what_is_stored_and_repairs_what_is_damaged(person, monkey, tmp_path):
    sources = [CorpusSource(person[0]), CorpusSource(monkey[0])]
    store = build_corpus(sources, tmp_path / "corpus")
    before = {path.name: path.stat().st_mtime_ns for path in store.glob("*.bin")}
    damaged = store / "monkey.mo.uint8.bin"
    damaged.write_bytes(b"\x01" + damaged.read_bytes()[1:])
    with pytest.raises(ValueError, match="damaged"):
        PretrainingCorpus(store, verify=True)
    build_corpus(sources, store)
    after = {path.name: path.stat().st_mtime_ns for path in store.glob("*.bin")}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"monkey.mo.uint8.bin"}
    PretrainingCorpus(store, verify=True)


def test_a_changed_setting_stores_a_dataset_anew(person, tmp_path):
    build_corpus([CorpusSource(person[0])], tmp_path / "corpus")
    build_corpus([CorpusSource(person[0])], tmp_path / "corpus", feature_kinds=["spike_band_power"])
    corpus = PretrainingCorpus(tmp_path / "corpus", verify=True)
    assert (corpus.manifest[0]["dtype"], corpus.settings["feature_kinds"]) == ("float16", ["spike_band_power"])


def test_an_unfinished_store_is_refused(corpus, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"corpus\.json"):
        PretrainingCorpus(tmp_path)
    (corpus.folder / "monkey.mo.uint8.bin").unlink()
    with pytest.raises(FileNotFoundError, match="monkey"):
        PretrainingCorpus(corpus.folder)


def test_what_cannot_be_mixed_is_refused_with_the_remedy(person, monkey, tmp_path):
    with pytest.raises(ValueError, match="no channel is of the kind"):
        build_corpus([CorpusSource(monkey[0])], tmp_path / "a", feature_kinds=["spike_band_power"])
    with pytest.raises(ValueError, match="give one of the sources another name"):
        build_corpus([CorpusSource(person[0], name="x"), CorpusSource(monkey[0], name="x")], tmp_path / "b")
    with pytest.raises(ValueError, match="give their folders other names"):
        build_corpus([CorpusSource(person[0]), CorpusSource(person[0])], tmp_path / "c")
    slow = write(tmp_path / "slow", [counts("z.2024.01.01", 1, 0, 9, bin_size_ms=10.0)])
    with pytest.raises(ValueError, match="one bin size"):
        build_corpus([CorpusSource(person[0]), CorpusSource(slow)], tmp_path / "d")
    only_test = write(tmp_path / "test", [counts("y.2024.01.01", 1, 0, 9, split="test")])
    with pytest.raises(ValueError, match="include_held_out"):
        build_corpus([CorpusSource(only_test)], tmp_path / "e")
    with pytest.raises(FileNotFoundError, match="convert recordings first"):
        build_corpus([CorpusSource(tmp_path / "nothing")], tmp_path / "f")
    with pytest.raises(ValueError, match="weight"):
        CorpusSource("x", weight=0.0)
    (person[0] / "README.md").unlink()
    with pytest.raises(ValueError, match="no finished conversion"):
        build_corpus([CorpusSource(person[0])], tmp_path / "g")


def test_sources_can_share_a_participant_under_one_name(person, tmp_path):
    again = shutil.copytree(person[0], tmp_path / "again")
    corpus = PretrainingCorpus(
        build_corpus([CorpusSource(person[0]), CorpusSource(again, name="ann")], tmp_path / "corpus")
    )
    assert corpus.participants == {"ann": 2}
    assert [entry["dataset"] for entry in corpus.manifest] == ["person.ann", "again.ann"]


def test_a_stream_gives_what_the_store_gives(corpus, person, monkey):
    shards = sorted((person[0] / "data").glob("*.parquet")) + sorted((monkey[0] / "data").glob("*.parquet"))
    stream = list(stream_corpus(shards))
    assert len(stream) == len(corpus)
    for number, row in enumerate(stream):
        assert (row["session_id"], row["block_index"], row["trial_index"]) == corpus.place(number)[1:]
        np.testing.assert_allclose(row["input_features"], corpus[number]["input_features"], atol=1e-6)


def test_a_stream_is_dealt_out_to_processes_and_resumes_in_the_middle(person, monkey):
    from datasets.distributed import split_dataset_by_node

    shards = [str(path) for folder in (person[0], monkey[0]) for path in sorted((folder / "data").glob("train*"))]
    key = lambda row: (row["session_id"], row["block_index"], row["trial_index"])  # noqa: E731
    everything = [key(row) for row in stream_corpus(shards)]
    parts = [[key(row) for row in split_dataset_by_node(stream_corpus(shards), rank, 3)] for rank in range(3)]
    assert sorted(sum(parts, [])) == sorted(everything)
    stream = stream_corpus(shards)
    iterator = iter(stream)
    seen = [key(next(iterator)) for _ in range(5)]
    state = json.loads(json.dumps(stream.state_dict()))
    resumed = stream_corpus(shards)
    resumed.load_state_dict(state)
    assert seen + [key(row) for row in resumed] == everything


def test_a_stream_refuses_what_it_cannot_know(person):
    with pytest.raises(ValueError, match="build a store"):
        stream_corpus([person[0]], normalization="session")
    with pytest.raises(ValueError, match="no shards"):
        stream_corpus([])
