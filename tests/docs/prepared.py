"""What the pages of the documentation take for granted: recordings, and checkpoints of the names they use, but tiny."""

import json
from pathlib import Path

import numpy as np
from transformers import AutoConfig, AutoModelForCTC, Wav2Vec2CTCTokenizer

from bit_speech import BITConfig, BITFeatureExtractor, BITForMaskedModeling, BITProcessor, PhonemeTokenizer
from bit_speech.decoding import BeamSearchDecoder, Lexicon, build_ngram_lm

from ..data_room.test_pretraining_corpus import counts, write
from ..decoding.small_language_models import TEXT, small_model, small_tokenizer
from ..modeling_bit.small_models import bit, speech_body

WORDS = {"the": "DH AH", "cat": "K AE T", "a": "AH", "sat": "S AE T", "on": "AA N", "casey": "K EY S IY"}


def posteriors(frames=24, seed=0):
    """Log-probabilities `(frames, 41)` of a model that has learnt nothing."""
    scores = np.random.default_rng(seed).normal(size=(frames, 41)) * 3
    return scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)


def recordings(count=3, bins=60, channels=6):
    return list(np.random.default_rng(0).normal(size=(count, bins, channels)).astype("f4"))


def language_model():
    lm = build_ngram_lm(TEXT, order=2)
    lm.save("lm.bin")
    return lm


def decoding():
    language_model()
    return {"log_probs": posteriors()}


def pretraining():
    shape = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 32}
    model = BITForMaskedModeling(BITConfig(participants={"t12": 128}, mask_ratio=0.5, **shape))
    model.save_pretrained("runs/pretrain_bit_all/model")


def corpora():
    for folder in ("t12", "t15", "churchland"):
        trials = [counts(f"{folder}.2024.01.0{day}", 1, trial, 20, 4) for day in (1, 2) for trial in range(4)]
        write(Path("trials") / folder, trials)


def language_model_folder(name, kind):
    tokenizer = small_tokenizer()
    small_model(kind, vocab_size=len(tokenizer)).save_pretrained(name)
    tokenizer.save_pretrained(name)


def end_to_end():
    bit().save_pretrained("runs/bit_t15/model")
    extractor = BITFeatureExtractor(participants={"t15": 6})
    BITProcessor(extractor, PhonemeTokenizer()).save_pretrained("runs/bit_t15/model")
    language_model_folder("Qwen/Qwen2.5-1.5B", "qwen2")
    cascade = BeamSearchDecoder(Lexicon.from_words(WORDS), language_model(), beam_size=20)
    trials = recordings()
    return {
        "trials": trials,
        "sentences": TEXT[:3],
        "sessions": ["t15.2023.08.11"] * 3,
        "features": trials[:1],
        "log_probs": posteriors(12),
        "cascade": cascade,
    }


def speech_checkpoint(name, **settings):
    AutoModelForCTC.from_config(AutoConfig.for_model(**speech_body(**settings))).save_pretrained(name)


def listening_model():
    name = "facebook/wav2vec2-base-960h"
    speech_checkpoint(name, vocab_size=32)
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"]
    Path("vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate(letters)}))
    Wav2Vec2CTCTokenizer("vocab.json").save_pretrained(name)


def listening_brains():
    speech_checkpoint("facebook/wav2vec2-base", conv_stride=[80, 4], conv_kernel=[10, 4])
    return {"audio": np.random.default_rng(0).normal(size=16_000 * 24).astype("f4"), "tr_times_s": [14.0, 16.0]}


def rescoring():
    language_model_folder("meta-llama/Llama-3.2-1B", "llama")
    model = bit()
    folder = Path("runs/mine/model")
    model.save_pretrained(folder)
    BITProcessor(BITFeatureExtractor(participants={"t15": 6}), PhonemeTokenizer()).save_pretrained(folder)
    decoder = BeamSearchDecoder(Lexicon.from_words(WORDS), language_model(), beam_size=20)
    nbest = decoder.decode(posteriors())
    return {
        "decoder": decoder,
        "model": model.eval(),
        "features": recordings(),
        "nbest": nbest,
        "validation_nbest": [nbest, decoder.decode(posteriors(seed=1))],
        "references": TEXT[:2],
        "folder": "runs/mine/model/rescored",
    }


PREPARED = {
    "decoding.md": decoding,
    "language_models.md": language_model,
    "pretraining.md": pretraining,
    "pretraining_experiments.md": corpora,
    "end_to_end.md": end_to_end,
    "wav2vec2_brain.md": listening_model,
    "brain_tuning.md": listening_brains,
    "rescoring_and_fusion.md": rescoring,
}
SMALLER = {
    "end_to_end.md": {"Lexicon.from_cmudict()": "cascade.lexicon"},
    "wav2vec2_brain.md": {"hidden_size=512, num_hidden_layers=5": "hidden_size=8, num_hidden_layers=1"},
    "brain_tuning.md": {"num_voxels=30172": "num_voxels=8"},
    "rescoring_and_fusion.md": {'device="cuda", dtype="bfloat16", ': ""},
}
