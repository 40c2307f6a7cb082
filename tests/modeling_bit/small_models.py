"""Tiny models and trials for the tests of this room."""

import torch

from bit_speech import (
    BITConfig,
    BITForCTC,
    BITGRUConfig,
    BITGRUForCTC,
    Wav2Vec2BrainConfig,
    Wav2Vec2BrainForCTC,
)

SESSIONS = ["t15.2023.08.11", "t15.2023.08.13", "t15.2023.08.18"]


def bit(**values) -> BITForCTC:
    torch.manual_seed(0)
    values = {
        "participants": {"t15": 6},
        "hidden_size": 24,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "intermediate_size": 32,
    } | values
    return BITForCTC(BITConfig(**values))


def gru(**values) -> BITGRUForCTC:
    torch.manual_seed(0)
    values = {"participants": {"t15": 6}, "sessions": SESSIONS, "hidden_size": 16, "num_hidden_layers": 2} | values
    return BITGRUForCTC(BITGRUConfig(**values))


def speech_body(kind="wav2vec2", **values) -> dict:
    """Configuration of a tiny speech model."""
    positions = {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
    if kind == "data2vec-audio":
        positions |= {"num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 5}
    return {
        "model_type": kind,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "conv_dim": [8, 8],
        "conv_kernel": [10, 3],
        "conv_stride": [5, 2],
        "layerdrop": 0.0,
        **positions,
        **values,
    }


def speech(kind="wav2vec2", body=None, **values) -> Wav2Vec2BrainForCTC:
    torch.manual_seed(0)
    values = {
        "participants": {"t15": 6},
        "sessions": SESSIONS,
        "vocab_size": 41,
        "patch_size": 8,
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "body_config": speech_body(kind, **(body or {})),
    } | values
    return Wav2Vec2BrainForCTC(Wav2Vec2BrainConfig(**values))


# Every architecture that the promises must hold for.
MODELS = {
    "paper": bit,
    "causal": lambda **v: bit(causal=True, **v),
    "windowed": lambda **v: bit(attention_window=2, **v),
    "causal and windowed": lambda **v: bit(causal=True, attention_window=2, **v),
    "overlapping": lambda **v: bit(patch_stride=2, **v),
    "sessions": lambda **v: bit(read_in="session", sessions=SESSIONS, **v),
    "masked": lambda **v: bit(mask_ratio=0.5, **v),
    "eager": lambda **v: bit(attn_implementation="eager", **v),
    "recurrent": gru,
    "recurrent both ways": lambda **v: gru(bidirectional=True, **v),
    "speech": speech,
    "speech with all extras": lambda **v: speech(
        junction_norm=True, mask_ratio=0.3, auxiliary_ctc_weight=0.3, projection_sizes=[12], bidirectional=False, **v
    ),
}


def batch(lengths=(70, 45, 33), channels=6, seed=0, padding=0.0):
    """Trials of the given numbers of bins, padded, with labels: the keyword arguments of a forward."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(len(lengths), max(lengths), channels, generator=generator)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    features[~mask] = padding
    labels = torch.full((len(lengths), 4), -100)
    for i in range(len(lengths)):
        labels[i, : 1 + i % 4] = torch.randint(1, 41, (1 + i % 4,), generator=generator)
    return {
        "input_features": features,
        "attention_mask": mask,
        "participant_index": torch.zeros(len(lengths), dtype=torch.long),
        "session_index": torch.arange(len(lengths)) % len(SESSIONS),
        "labels": labels,
    }
