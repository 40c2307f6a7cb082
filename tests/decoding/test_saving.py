"""A decoder in a folder: the same after loading, whole or absent, and never mistaken for something else."""

import json
import math

import numpy as np
import pytest

import bit_speech.decoding.saving as saving
from bit_speech.decoding import BeamSearchDecoder, Lexicon, RescoringWeights, build_ngram_lm
from bit_speech.decoding.saving import load_rescoring

from .small_language_models import small_model, small_tokenizer

LEXICON = Lexicon.from_words({"be": "B IY", "bee": "B IY", "the": "DH AH", "tea": "T IY"})
SETTINGS = {
    "beam_size": 20,
    "acoustic_scale": 0.3,
    "missing_sil_score": -math.inf,
    "beam_threshold": math.inf,
    "unknown_word_score": None,
    "class_order": "lm",
}


@pytest.fixture(scope="module")
def decoder():
    return BeamSearchDecoder(LEXICON, build_ngram_lm(["the tea", "be the tea", "the bee"] * 3, order=2), **SETTINGS)


def log_probs():
    scores = np.random.default_rng(0).normal(0, 2, (12, 41))
    return scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)


def test_a_saved_decoder_decodes_the_same(decoder, tmp_path):
    loaded = BeamSearchDecoder.from_pretrained(decoder.save_pretrained(tmp_path / "decoder"))
    assert loaded.settings == decoder.settings
    assert loaded.decode(log_probs()) == decoder.decode(log_probs())
    assert BeamSearchDecoder.from_pretrained(tmp_path, subfolder="decoder", beam_size=7).beam_size == 7


def test_a_decoder_without_language_model_is_saved_too(tmp_path):
    plain = BeamSearchDecoder(LEXICON)
    loaded = BeamSearchDecoder.from_pretrained(plain.save_pretrained(tmp_path / "decoder"))
    assert loaded.lm is None and loaded.decode(log_probs()) == plain.decode(log_probs())


def test_saving_again_replaces_the_decoder_and_nothing_else(decoder, tmp_path):
    folder = tmp_path / "decoder"
    decoder.save_pretrained(folder)
    BeamSearchDecoder(LEXICON).save_pretrained(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["decoder_config.json", "lexicon.npz"]
    assert [path.name for path in tmp_path.iterdir()] == ["decoder"]
    with pytest.raises(ValueError, match="no decoder"):
        decoder.save_pretrained(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="no decoder"):
        decoder.save_pretrained(tmp_path / "file")


def test_a_crash_while_saving_leaves_the_old_decoder(decoder, tmp_path, monkeypatch):
    folder = decoder.save_pretrained(tmp_path / "decoder")

    def crash(*_):
        raise OSError("no space left")

    monkeypatch.setattr(saving, "write_json", crash)
    with pytest.raises(OSError, match="no space"):
        BeamSearchDecoder(LEXICON).save_pretrained(folder)
    assert BeamSearchDecoder.from_pretrained(folder).settings == decoder.settings
    assert [path.name for path in tmp_path.iterdir()] == ["decoder"]


@pytest.mark.parametrize(
    ("name", "damage", "error", "message"),
    [
        ("decoder_config.json", None, FileNotFoundError, "no decoder"),
        ("lexicon.npz", None, FileNotFoundError, "incomplete"),
        ("language_model.bin", None, FileNotFoundError, "incomplete"),
        ("language_model.bin", b"short", ValueError, "bytes instead of"),
        ("decoder_config.json", b"{", ValueError, "no JSON"),
        ("decoder_config.json", b"[]", ValueError, "format None"),
        ("decoder_config.json", b'{"format": "wav2vec"}', ValueError, "'wav2vec'"),
        ("decoder_config.json", b'{"format": "bit-speech decoder", "version": 99}', ValueError, "version 99"),
        ("decoder_config.json", b'{"format": "bit-speech decoder", "version": 1}', ValueError, "no 'files'"),
    ],
)
def test_partial_and_foreign_folders_are_refused(decoder, tmp_path, name, damage, error, message):
    path = decoder.save_pretrained(tmp_path / "decoder") / name
    path.unlink() if damage is None else path.write_bytes(damage)
    with pytest.raises(error, match=message):
        BeamSearchDecoder.from_pretrained(tmp_path / "decoder")


def test_a_config_cannot_point_out_of_its_folder(decoder, tmp_path):
    path = decoder.save_pretrained(tmp_path / "decoder") / "decoder_config.json"
    config = json.loads(path.read_text())
    config["files"]["../secret"] = 3
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="names the files"):
        BeamSearchDecoder.from_pretrained(tmp_path / "decoder")


def test_a_name_that_is_nowhere_is_said_to_be(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match="neither a folder"):
        BeamSearchDecoder.from_pretrained(tmp_path / "nowhere")


def test_rescoring_travels_with_the_decoder(decoder, tmp_path):
    model = tmp_path / "model"
    small_model().save_pretrained(model)
    small_tokenizer().save_pretrained(model)
    weights = RescoringWeights(llm_weight=0.4, lm_weight=0.3)
    folder = decoder.save_pretrained(
        tmp_path / "decoder", {"model": str(model), "weights": weights.to_dict(), "end_punctuation": "."}
    )
    rescorer, found = load_rescoring(folder)
    assert found == weights and rescorer.end_punctuation == "."
    assert load_rescoring(decoder.save_pretrained(folder)) is None
    with pytest.raises(ValueError, match="weights"):
        decoder.save_pretrained(folder, {"model": "x", "weights": {"no_such_weight": 1.0}})
    with pytest.raises(ValueError, match="expected a model"):
        decoder.save_pretrained(folder, {"weights": {}})
