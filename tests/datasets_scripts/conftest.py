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


def make_session_24(seed, trials=4, electrodes=256, blocks=(3, 5), bins=(15, 30)):
    rng = np.random.default_rng(seed)
    bins = rng.integers(*bins, size=trials)
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


def write_nwb(path, subject="Jenkins", electrodes=(), units=(), trials=None, groups=None, series=(), day="2009-09-12"):
    """One NWB file by pynwb. `electrodes`: location and group; `units`: electrode (or None) and spike times; `series`:
    where, name and the arguments of a TimeSeries (or of an ElectricalSeries, with `electrodes`)."""
    import datetime

    import pynwb
    from pynwb.ecephys import ElectricalSeries

    start = datetime.datetime.fromisoformat(f"{day}T12:00:00+00:00")
    nwb = pynwb.NWBFile("session", f"{path.name} {day}", start)
    nwb.subject = pynwb.file.Subject(subject_id=subject, species="Macaca mulatta", sex="M", age="P9Y")
    device = nwb.create_device("Utah array")
    made = {
        name: nwb.create_electrode_group(name, description=description, location=location, device=device)
        for name, (location, description) in (groups or {"1": ("unknown", "no description")}).items()
    }
    for location, group in electrodes:
        nwb.add_electrode(location=location, group=made[group])
    for electrode, times in units:
        more = {} if electrode is None else {"electrodes": [electrode]}
        nwb.add_unit(spike_times=np.array(times, dtype=float), **more)
    trials = trials or {}
    for name in trials:
        if name not in ("start_time", "stop_time"):
            nwb.add_trial_column(name, "a column")
    for row in range(len(trials.get("start_time", ()))):
        nwb.add_trial(**{name: values[row] for name, values in trials.items()})
    for place, name, arguments in series:
        if "electrodes" in arguments:
            region = nwb.create_electrode_table_region(arguments["electrodes"], "all")
            made_series = ElectricalSeries(name=name, **{**arguments, "electrodes": region})
        else:
            made_series = pynwb.TimeSeries(name=name, **arguments)
        if place == "analysis":
            nwb.add_analysis(made_series)
        elif place == "acquisition":
            nwb.add_acquisition(made_series)
        else:
            nwb.create_processing_module(place, "processed").add(made_series)
    path.parent.mkdir(parents=True, exist_ok=True)
    with pynwb.NWBHDF5IO(str(path), "w") as io:
        io.write(nwb)
    return path


def _write_v73(file, parent, name, value):
    """One MATLAB value as MATLAB's own -v7.3 files have it: transposed, cells as references, text as codes."""
    if isinstance(value, dict):
        group = parent.create_group(name)
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        for key, one in value.items():
            _write_v73(file, group, key, one)
        return group
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        group = parent.create_group(name)
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        for key in value[0]:
            group[key] = _references(file, [one[key] for one in value]).reshape(-1, 1)
        return group
    if isinstance(value, np.ndarray) and value.dtype == object:
        item = parent.create_dataset(
            name, data=_references(file, value.reshape(-1, order="F")).reshape(value.shape[::-1])
        )
        kind = "cell"
    elif isinstance(value, str) and value:
        item = parent.create_dataset(name, data=np.array([[ord(code)] for code in value], dtype=np.uint16))
        kind = "char"
    else:
        array = np.atleast_2d(np.array([]) if isinstance(value, str) else value)
        kind = "char" if isinstance(value, str) else {"u": "uint8", "b": "logical"}.get(array.dtype.kind, "double")
        if array.size:
            item = parent.create_dataset(name, data=array.T)
        else:
            item = parent.create_dataset(name, data=np.zeros(2, dtype=np.uint64))
            item.attrs["MATLAB_empty"] = np.uint8(1)
    item.attrs["MATLAB_class"] = np.bytes_(kind)
    return item


def _references(file, values):
    store = file.require_group("#refs#")
    made = [_write_v73(file, store, f"r{len(store)}_{i}", value).ref for i, value in enumerate(values)]
    return np.array(made, dtype=h5py.ref_dtype)


def write_matlab(path, variables, version):
    """A MATLAB file: `"v5"` by scipy, `"v7.3"` by h5py. Cells are object arrays, structs dictionaries."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if version == "v5":
        scipy.io.savemat(path, variables)
        return path
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in variables.items():
            _write_v73(file, file, name, value)
    return path


def cell(values, shape=None):
    """A cell with these contents, a column unless a shape is given."""
    made = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):
        made[index] = value
    return made.reshape(shape or (-1, 1), order="F")


@pytest.fixture
def nwb_file():
    """Writer of NWB files."""
    pytest.importorskip("pynwb")
    return write_nwb


@pytest.fixture
def matlab_file():
    """Writer of MATLAB files."""
    return write_matlab


@pytest.fixture
def matlab_cell():
    """Maker of cells."""
    return cell


@pytest.fixture
def trials_in():
    """Rows of a converted dataset, by Parquet alone (no cache)."""
    import pyarrow.parquet as pq

    def read(folder):
        rows = []
        for path in sorted((folder / "data").glob("*.parquet")):
            for row in pq.read_table(path).to_pylist():
                rows.append({**row, "features": np.array(row["features"], dtype=np.float32)})
        return rows

    return read
