"""The control without a brain: updates learn to spell the stories, and nothing else changes."""

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

from bit_speech.data.story_runs import Interval
from bit_speech.training.stimulus_tuning import spoken_clips, tune_to_stimuli
from modeling_bit.modeling_brain_tuned import BrainTunedForVoxelPrediction

BODY = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "conv_dim": [8, 8],
    "conv_kernel": [10, 4], "conv_stride": [80, 4], "feat_extract_norm": "layer", "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2, "vocab_size": 4, "ctc_loss_reduction": "mean", "ctc_zero_infinity": True,
}  # fmt: skip


def clips() -> list[tuple[np.ndarray, list[int]]]:
    """Three tones, a letter each, in clips of unequal length."""
    time = np.arange(4800) / 16_000
    tones = [np.sin(2 * np.pi * hertz * time).astype(np.float32) for hertz in (300, 900, 2700)]
    return [(np.tile(tones[i], 1 + i % 2), [i + 1] * (1 + i % 2)) for i in (0, 1, 2)]


def test_updates_learn_to_spell_and_the_head_for_letters_stays(tmp_path):
    torch.manual_seed(0)
    Wav2Vec2ForCTC(Wav2Vec2Config(**BODY)).save_pretrained(tmp_path)
    speller = Wav2Vec2ForCTC.from_pretrained(tmp_path)
    model = BrainTunedForVoxelPrediction.from_speech_checkpoint(tmp_path, num_voxels=2)
    head = speller.lm_head.weight.clone()
    before = {name: value.clone() for name, value in model.model.body.state_dict().items()}
    losses = tune_to_stimuli(model, speller, clips(), updates=60, batch_size=3, learning_rate=3e-2)
    assert len(losses) == 60 and np.mean(losses[-5:]) < 0.93 * np.mean(losses[:5])
    changed = {name for name, value in model.model.body.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.endswith((".up", ".down")) for name in changed)
    assert torch.equal(speller.lm_head.weight, head) and not model.training
    again = BrainTunedForVoxelPrediction.from_speech_checkpoint(tmp_path, num_voxels=2)
    assert tune_to_stimuli(again, speller, clips(), 2, 3, seed=1)[0] == pytest.approx(losses[0], rel=1e-4)


def test_clips_end_between_words_and_say_what_is_in_them():
    words = [
        Interval(0.5, 1.0, "one"),
        Interval(1.0, 1.2, "two"),
        Interval(1.2, 4.0, "three"),
        Interval(4.0, 4.5, "four"),
    ]
    found = spoken_clips(np.random.default_rng(0).normal(size=80_000), words, 1.0)
    assert [(len(clip) / 16_000, text) for clip, text in found] == [(0.7, "one two"), (2.8, "three"), (0.5, "four")]
    assert all(abs(clip.mean()) < 1e-5 and abs(clip.std() - 1) < 1e-3 for clip, _ in found)


def test_what_cannot_learn_is_refused(tmp_path):
    Wav2Vec2ForCTC(Wav2Vec2Config(**BODY)).save_pretrained(tmp_path)
    frozen = BrainTunedForVoxelPrediction.from_speech_checkpoint(tmp_path, num_voxels=2, tuning="frozen")
    with pytest.raises(ValueError, match="lora or full"):
        tune_to_stimuli(frozen, Wav2Vec2ForCTC.from_pretrained(tmp_path), clips(), 1)
    with pytest.raises(ValueError, match="no clips"):
        tune_to_stimuli(frozen, None, [], 1)
    with pytest.raises(ValueError, match="no words"):
        spoken_clips(np.zeros(9), [], 1.0)
