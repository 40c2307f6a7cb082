"""Writers of files in exactly the official layouts, small."""

import zlib

import h5py
import numpy as np
import pytest
import scipy.io


def sentence(seed):
    words = ("the", "eastern", "coast", "is", "a", "place", "for", "pure", "pleasure")
    rng = np.random.default_rng(seed)
    return " ".join(words[i] for i in rng.integers(len(words), size=4)).capitalize() + f" {seed}."


def make_trial_25(seed, session, block, trial, channels=512, bins=None, dtype=np.float32):
    rng = np.random.default_rng(seed)
    bins = int(rng.integers(20, 40)) if bins is None else bins
    length = int(rng.integers(3, 30))
    return {
        "input_features": rng.normal(size=(bins, channels)).astype(dtype),
        "seq_class_ids": rng.integers(1, 41, size=length),
        "text": sentence(seed),
        "session": session,
        "block_num": block,
        "trial_num": trial,
    }


def write_file_25(path, trials, labels=True, text_as="str"):
    """One data_*.hdf5 as in the release: groups trial_%04d with datasets and attributes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for index, trial in enumerate(trials):
            group = file.create_group(f"trial_{index:04d}")
            group.create_dataset("input_features", data=trial["input_features"])
            group.attrs["n_time_steps"] = len(trial["input_features"])
            group.attrs["session"] = trial["session"] if text_as == "str" else trial["session"].encode()
            group.attrs["block_num"] = np.int64(trial["block_num"])
            group.attrs["trial_num"] = np.int64(trial["trial_num"])
            if labels:
                ids = np.zeros(500, dtype=np.int32)
                ids[: len(trial["seq_class_ids"])] = trial["seq_class_ids"]
                codes = np.zeros(500, dtype=np.int32)
                codes[: len(trial["text"])] = list(trial["text"].encode("ascii"))
                group.create_dataset("seq_class_ids", data=ids)
                group.create_dataset("transcription", data=codes)
                group.attrs["seq_len"] = np.int64(len(trial["seq_class_ids"]))
                text = trial["text"]
                group.attrs["sentence_label"] = text if text_as == "str" else np.bytes_(text.encode())
    return path


def write_session_25(folder, session, blocks=(1, 2), splits=("train", "val", "test"), per_block=2, **options):
    """One day; gives the trials that were written, by the name that the split has in the file."""
    text_as = options.pop("text_as", "str")
    written = {}
    for split in splits:
        trials = [
            make_trial_25(zlib.crc32(f"{session}{split}{block}{trial}".encode()), session, block, trial, **options)
            for block in (blocks if split == "train" else (blocks[-1] + 1,))
            for trial in range(per_block)
        ]
        write_file_25(folder / session / f"data_{split}.hdf5", trials, labels=split != "test", text_as=text_as)
        written[split] = trials
    return written


def make_session_24(seed, trials=4, electrodes=256, blocks=(3, 5)):
    rng = np.random.default_rng(seed)
    bins = rng.integers(15, 30, size=trials)
    return {
        **{f"tx{k}": [rng.poisson(2.0 / k, (n, electrodes)).astype(np.uint8) for n in bins] for k in range(1, 5)},
        "spikePow": [rng.lognormal(size=(n, electrodes)).astype(np.float32) for n in bins],
        "blockIdx": np.sort(rng.choice(blocks, size=trials)),
        "sentenceText": [sentence(seed * 100 + i) for i in range(trials)],
    }


def cells(arrays):
    out = np.empty((1, len(arrays)), dtype=object)
    for i, array in enumerate(arrays):
        out[0, i] = array
    return out


def write_file_24(path, session, redacted=False):
    """One .mat as in the release: v5, cells, a padded character matrix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width = max(map(len, session["sentenceText"])) + 3
    texts = np.array([(" " if redacted else text).ljust(width) for text in session["sentenceText"]])
    variables = {name: cells(session[name]) for name in ("tx1", "tx2", "tx3", "tx4", "spikePow")}
    variables |= {"blockIdx": session["blockIdx"][:, None].astype(np.uint8), "sentenceText": texts}
    scipy.io.savemat(path, variables, format="5", do_compression=True)
    return path


@pytest.fixture
def layout_25():
    """Writers of the '25 layout."""

    class Writers:
        trial = staticmethod(make_trial_25)
        file = staticmethod(write_file_25)
        session = staticmethod(write_session_25)

    return Writers


@pytest.fixture
def layout_24():
    """Writers of the '24 layout."""

    class Writers:
        session = staticmethod(make_session_24)
        file = staticmethod(write_file_24)

    return Writers


@pytest.fixture
def load(tmp_path):
    """Open a converted dataset with a private cache."""
    from bit_speech.data.reading import load_trials

    return lambda folder, split=None: load_trials(folder, split, cache_dir=tmp_path / "hf_cache")
