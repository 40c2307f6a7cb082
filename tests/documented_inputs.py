"""What the commands of the pages take for granted, tiny: recordings in the published layouts, and checkpoints.

Each function writes into the folder that it is called in; what it needs is imported when it is called.
"""

import gzip
import json
import lzma
import shutil
from pathlib import Path

import numpy as np
import pytest

# The five whom the page on brain-tuning names: three to tune on, two to score.
LISTENERS = ("UTS01", "UTS02", "UTS03", "UTS04", "UTS05")
SENTENCES = ["the cat sat", "a cat sat on the cat"]


def nothing():
    """The page begins with nothing."""


def word_model():
    from bit_speech.decoding import build_ngram_lm

    return build_ngram_lm(SENTENCES, order=2)


def write_recordings(folder, num_channels=256):
    """Recordings as the example of `bit-speech convert participant` describes them, and that example."""
    from datasets_scripts.convert_participant import EXAMPLE

    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    said = ["the cat sat", "a cat sat on the cat", "the cat", "sat on a cat", "a cat", "on the cat sat a cat"]
    for day, block, count in (("05", 1, 6), ("08", 4, 3), ("15", 2, 2)):
        for trial in range(count):
            np.savez(
                folder / f"p01.2024.01.{day}_{trial}.npz", block=block, trial=trial,
                neural=rng.poisson(2.0, (120, num_channels)).astype(np.float32),
                sentence=f"{said[trial]} {'on' if day == '08' else 'sat' if day == '15' else ''}".strip(),
            )  # fmt: skip
    return EXAMPLE


def readme():
    Path("my_participant.yaml").write_text(write_recordings(Path()))
    Path("recordings").mkdir()
    Path("recordings/participant.yaml").write_text(write_recordings(Path("recordings")))
    word_model().save("lm.bin")


def help_walk():
    Path("lexicon.txt").write_text(Path("words.txt").read_text())
    word_model().write_arpa("lm.arpa.xz")


def language_models():
    from bit_speech.decoding import build_ngram_lm

    text = "".join(f"{line}\n" for line in (*SENTENCES, "on a cat") * 10)
    for name in ("talk.txt", "books.txt", "dev.txt"):
        Path(name).write_text(text)
    Path("words.txt").write_text("the cat sat on a")
    Path("corpus.txt.xz").write_bytes(lzma.compress(text.encode()))
    build_ngram_lm(text.splitlines(), order=3).write_arpa("lm.arpa")
    Path("lm.arpa.gz").write_bytes(gzip.compress(Path("lm.arpa").read_bytes()))


def competition_24(bins=(15, 30)):
    """A day in the layout of Brain-to-Text '24, trained on and held out."""
    from datasets_scripts.convert_brain_to_text_24 import SESSIONS

    from .datasets_scripts.conftest import make_session_24, write_file_24

    for seed, part in enumerate(("train", "test", "competitionHoldOut")):
        path = Path("competitionData") / part / f"{SESSIONS[4]}.mat"
        write_file_24(path, make_session_24(seed, bins=bins), redacted=part == "competitionHoldOut")


def layouts():
    from .datasets_scripts.conftest import write_session_25

    write_session_25(Path("hdf5_data_final"), "t15.2023.08.13")
    competition_24()
    Path("my_participant.yaml").write_text(write_recordings(Path()))


def word_writer(folder, seed=0):
    """A model of six channels that has learnt nothing, and its decoder of three words."""
    import torch

    from bit_speech import BITForCTC
    from bit_speech.decoding import BeamSearchDecoder, Lexicon

    from .hub.models_to_publish import bit, neural

    torch.manual_seed(seed)
    BITForCTC(bit()).save_pretrained(folder)
    neural().save_pretrained(folder)
    words = {"the": "DH AH", "cat": "K AE T", "a": "AH"}
    BeamSearchDecoder(Lexicon.from_words(words), word_model(), beam_size=10).save_pretrained(Path(folder) / "decoder")


def six_channels(splits, count, text, bins=60):
    """So many trials of each split for such a model."""
    rng = np.random.default_rng(0)
    return [
        {
            "participant_id": "t15", "session_id": "t15.2023.08.11", "block_index": block, "trial_index": trial,
            "split": split, "text": text, "phonemes": None, "features": rng.normal(size=(bins, 6)).astype(np.float32),
            "feature_kinds": ["threshold_crossings"] * 6, "channel_areas": ["55b"] * 6,
        }
        for block, split in enumerate(splits) for trial in range(count)
    ]  # fmt: skip


def decoding():
    from .converted import convert

    for name in ("me", "t15"):
        word_writer(f"runs/{name}/model")
    convert(six_channels(["test"], 3, text="the cat sat"), Path("runs/me"))
    # The benchmark takes all of its 1,450 sentences or none.
    convert(six_channels(["test"], 1450, text=None, bins=12), Path("runs/t15"))


def decoders():
    """Two decoders, and an instruction-tuned language model of the name that the recipe has."""
    pytest.importorskip("trl")
    from .converted import convert
    from .docs.prepared import language_model_folder

    for seed in range(2):
        word_writer(f"runs/seed{seed}/model", seed)
    convert(six_channels(["validation", "test"], 4, text="the cat sat"), Path("runs/me"))
    language_model_folder("Qwen/Qwen2.5-1.5B-Instruct", "qwen2")


def listening():
    """Five listeners of three stories in voxels of their own, their cortex, and a speech model of twelve layers."""
    from bit_speech.data.cortical_areas import ROI_SETS

    from .datasets_scripts.test_convert_stories import lebel, surfaces
    from .docs.prepared import speech_checkpoint

    lebel(Path("raw/ds003020"), volumes=50, scans=70, people=LISTENERS, voxels=54, seconds=110.0)
    areas = sorted({area for members in ROI_SETS["paper"].values() for area in members})
    for person in LISTENERS:
        surfaces(Path("subjects") / person, Path("subjects/fsaverage"), areas, range(1, len(areas) + 1))
        write_mask(Path("masks") / person)
    speech_checkpoint("facebook/wav2vec2-base", num_hidden_layers=12, conv_stride=[160, 4], conv_kernel=[10, 4])


def write_mask(folder):
    """The voxels of a participant, and how pycortex says where they are."""
    from .datasets_scripts.test_convert_stories import nifti

    nifti(folder / "mask_thick.nii.gz", np.ones((6, 3, 3)))
    (folder / "matrices.xfm").write_text(json.dumps({"coord": np.eye(4).tolist()}))


def ieeg_audio():
    """Public corpora of one recording each, a week of one's own with a task in it, and a speech model of 20 layers."""
    from .datasets_scripts.test_ieeg_audio_converters import bids, make_pair, treebank
    from .docs.prepared import speech_checkpoint

    bids(Path("ds005574"), "onset\tduration\ttrial_type\n0.0\t200\tword\n", subjects=("03",))
    bids(Path("ds00xxxx"), "onset\tduration\ttrial_type\n0.0\t200\tword\n", subjects=("01",))
    Path("ds00xxxx/stimuli/podcast.wav").rename("ds00xxxx/stimuli/story.wav")
    treebank(Path("braintreebank"), Path("movies"))
    entries = []
    for number in range(3):
        make_pair(Path(), f"day{number}", seconds=95.0, seed=number, offset=3.0, drift_ppm=400.0)
        make_pair(Path(), f"book{number}", seconds=65.0, seed=3 + number, offset=2.0, drift_ppm=0.0)
        for name, more in (("day", "sync_channel: DC1"), ("book", "audio_start_s: 2, condition: clean")):
            files = f"ieeg: {name}{number}.edf, audio: {name}{number}.wav"
            entries.append(f"  - {{{files}, session: day1, {more}}}\n")
    Path("my_week.yaml").write_text("participant_id: me\nrecordings:\n" + "".join(entries))
    speech_checkpoint(
        "facebook/wav2vec2-large-xlsr-53", num_hidden_layers=20, conv_stride=[160, 4], conv_kernel=[10, 4]
    )


def pretraining():
    """A converted folder for every corpus of the recipe; where a converter makes several datasets, two of them."""
    from bit_speech.arguments import load_config

    from .data_room.test_pretraining_corpus import counts, write
    from .documentation import ROOT

    for folder in map(Path, load_config(ROOT / "examples/configs/pretrain_bit_all.yaml")["trials"]):
        if folder.name in ("t12", "t15"):
            speaking(folder, folder.name)
            continue
        for areas, channels in (("M1-2", 4), ("PMd-3", 6)):
            trials = [counts("jenkins.2009.09.12", 1, trial, 40, channels) for trial in range(4)]
            write(folder / f"{folder.name}_jenkins_{areas}", trials)
    speaking(Path("runs/trials/t12_imagined"), "t12")


def speaking(folder, participant):
    """Six sentences to train on and two to watch."""
    from .converted import convert
    from .data_room.test_pretraining_corpus import counts

    said = {"text": "the cat", "phonemes": "DH AH K AE T"}
    parts = [("train", 1, trial) for trial in range(6)] + [("validation", 2, trial) for trial in range(2)]
    rows = [
        counts(f"{participant}.2024.01.05", block, trial, 100, 8, split=split, **said) for split, block, trial in parts
    ]
    convert(rows, folder.parent, folder.name)


def monkeys():
    pytest.importorskip("pynwb")
    from .datasets_scripts.conftest import write_nwb

    write_nwb(
        Path("raw/000070/sub-Jenkins/sub-Jenkins_ses-20090912_behavior+ecephys.nwb"),
        electrodes=[("M1", "1")] * 2,
        units=[(0, [1.0, 1.019, 1.02]), (1, [1.05])],
        trials={"start_time": [1.0, 2.0], "stop_time": [1.06, 2.06]},
    )


def speech_models():
    """A participant of Brain-to-Text '24, a speech model that spells, and a voice where espeak-ng is not installed."""
    from datasets_scripts import convert_brain_to_text_24

    from .docs.prepared import listening_model

    competition_24(bins=(300, 320))
    convert_brain_to_text_24.convert("competitionData", "trials/t12", allow_partial=True, progress=False)
    listening_model()
    if shutil.which("espeak-ng") is None:
        tone = (9000 * np.sin(np.arange(22_050 * 2) / 9)).astype("<i2")
        Path("bin").mkdir()
        Path("bin/tone.wav").write_bytes(bytes(44) + tone.tobytes())
        Path("bin/espeak-ng").write_text(f"#!/bin/sh\ncat {Path('bin/tone.wav').resolve()}\n")
        Path("bin/espeak-ng").chmod(0o755)
