"""A cohort of two, stories of tones, and a speech model small enough to train in a test."""

from functools import cache

import numpy as np

from bit_speech.data.text_features import words_of
from bit_speech.simulation.story_cohort import CohortConfig, Stimulus, StoryCohort, make_stimulus
from configuration_bit.configuration_brain_tuned import BrainTunedConfig

BODY = {
    "model_type": "wav2vec2", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 32, "conv_dim": [8, 8], "conv_kernel": [10, 4], "conv_stride": [80, 4],
    "feat_extract_norm": "layer", "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
VOXELS = 8
SENTENCES = ("we go home now", "the dog can see you", "they like it here", "she said no to him", "what is the time")


def vectors(texts) -> np.ndarray:
    """Two numbers per text: words, and letters."""
    return np.array([[len(words_of(text)), len(text)] for text in texts], dtype=float)


@cache
def stimulus(number: int = 0, sentences: int = 5) -> Stimulus:
    order = [SENTENCES[(number + i) % len(SENTENCES)] for i in range(sentences)]
    return make_stimulus(f"story{number}", order, vectors)


@cache
def cohort(snr: float = 1.0, seed: int = 0) -> StoryCohort:
    config = CohortConfig(num_voxels=VOXELS, snr=snr, seed=seed)
    return StoryCohort(config, {"acoustic": 16, "phonemic": 39, "lexical": 2})


def config(**values) -> BrainTunedConfig:
    return BrainTunedConfig(**({"body_config": BODY, "num_voxels": VOXELS, "clip_s": 4.0} | values))
