"""A channel that records nothing is found, and the rule for it is the published one."""

import json

import numpy as np
import pytest

from bit_speech.data.dead_channels import find_dead_channels, record_dead_channels, repair_dead_channels
from bit_speech.data.writing import ShardWriter

KINDS = ["threshold_crossings"] * 3 + ["spike_band_power"] * 2


def test_a_channel_is_dead_only_when_it_never_changes_in_the_whole_session():
    first = np.array([[0, 1, 0], [0, 2, 0]], dtype=np.float32)
    second = np.array([[0, 1, 1]], dtype=np.float32)
    assert find_dead_channels([first]) == [0, 2] and find_dead_channels([first, second]) == [0]
    # Power that is stuck at a value is as dead as a channel without spikes.
    assert find_dead_channels([np.array([[7.5, 1.0], [7.5, 2.0]])]) == [0]
    with pytest.raises(ValueError, match="without trials"):
        find_dead_channels([])


def test_a_dead_channel_gets_the_mean_of_the_live_ones_of_its_kind_bin_by_bin():
    features = np.array([[0, 2, 4, 100, 0], [0, 1, 1, 300, 0]], dtype=np.float32)
    repaired = repair_dead_channels(features, [0, 4], KINDS)
    assert repaired.tolist() == [[3, 2, 4, 100, 100], [1, 1, 1, 300, 300]]
    assert features[0, 0] == 0


def test_up_to_two_dead_channels_are_repaired_and_three_exclude_the_session():
    features = np.ones((4, 5), dtype=np.float32)
    assert repair_dead_channels(features, [], KINDS) is features
    assert repair_dead_channels(features, [0, 1], KINDS) is not None
    assert repair_dead_channels(features, [0, 1, 3], KINDS) is None
    assert repair_dead_channels(features, [0, 1, 3], KINDS, max_dead=3) is not None


def test_a_kind_without_a_live_channel_cannot_be_repaired():
    with pytest.raises(ValueError, match="every channel of kind 'spike_band_power' is dead"):
        repair_dead_channels(np.ones((4, 5), dtype=np.float32), [3, 4], KINDS)
    with pytest.raises(ValueError, match="2 kinds for 5 channels"):
        repair_dead_channels(np.ones((4, 5), dtype=np.float32), [3], KINDS[:2])


def test_the_dead_channels_of_a_dataset_are_recorded_per_session_over_its_splits(tmp_path):
    def write(split, session, features):
        with ShardWriter(tmp_path / "data" / f"{split}-{session}.parquet", 2) as writer:
            for index, array in enumerate(features):
                writer.add(
                    {
                        "participant_id": "p",
                        "session_id": session,
                        "block_index": 0,
                        "trial_index": index,
                        "split": split,
                        "features": np.array(array, dtype=np.float32),
                        "bin_size_ms": 20.0,
                        "feature_kinds": ["threshold_crossings"] * 2,
                        "channel_areas": ["M1"] * 2,
                        "species": "macaque",
                        "task": "reaching",
                        "text": None,
                        "phonemes": None,
                        "source": "s",
                        "licence": "CC0-1.0",
                    }
                )

    write("train", "a", [[[0, 0], [0, 1]], [[0, 5], [0, 1], [0, 1]]])
    write("train", "b", [[[0, 3], [0, 3]]])
    write("validation", "b", [[[0, 3], [1, 3]]])
    assert record_dead_channels(tmp_path) == {"a": [0], "b": [1]}
    assert json.loads((tmp_path / "dead_channels.json").read_text())["sessions"] == {"a": [0], "b": [1]}
    with pytest.raises(FileNotFoundError, match="not the output of a converter"):
        record_dead_channels(tmp_path / "nowhere")
