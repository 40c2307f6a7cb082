"""Brain-tuned speech models: what learns, what is saved, and that the tuned body is an ordinary speech model."""

import subprocess
import sys

import pytest
import torch
from transformers import AutoModel, AutoModelForAudioClassification, Wav2Vec2Config, Wav2Vec2Model

import bit_speech  # noqa: F401  (makes the Auto classes know the models)
from configuration_bit.configuration_brain_tuned import BrainTunedConfig
from modeling_bit.losses_brain_tuned import voxel_loss
from modeling_bit.modeling_brain_tuned import BrainTunedForVoxelPrediction, BrainTunedModel, canonical_hrf
from processing_bit.feature_extraction_story import StoryFeatureExtractor

BODY = {
    "model_type": "wav2vec2", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 32, "conv_dim": [8, 8], "conv_kernel": [10, 4], "conv_stride": [80, 4],
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
PEOPLE = ["a", "b"]


def build(**values) -> BrainTunedForVoxelPrediction:
    torch.manual_seed(0)
    model = BrainTunedForVoxelPrediction(BrainTunedConfig(**({"body_config": BODY, "num_voxels": 6} | values)))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith((".up", "deviations")):
                value.normal_(std=0.1)
    return model.eval()


def audio(batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, 8000, generator=torch.Generator().manual_seed(1))


def test_the_base_model_has_the_published_number_of_updates():
    with torch.device("meta"):
        model = BrainTunedModel(BrainTunedConfig()).train()
    learned = {name: value.numel() for name, value in model.named_parameters() if value.requires_grad}
    assert sum(learned.values()) == 589_824
    body = sum(value.numel() for name, value in model.body.named_parameters() if not name.endswith((".up", ".down")))
    assert body == 94_371_712
    assert all(name.endswith((".up", ".down")) for name in learned)


def test_the_published_head_has_one_map_for_everybody():
    with torch.device("meta"):
        model = BrainTunedForVoxelPrediction(BrainTunedConfig())
    assert sum(value.numel() for value in model.head.parameters()) == 768 * 30172 + 30172


@pytest.mark.parametrize("head", ["shared", "separate", "low_rank"])
@pytest.mark.parametrize("readout", ["mean", "last", "hrf", "regions"])
def test_gradients_reach_all_that_should_learn_and_nothing_else(head, readout):
    model = build(head=head, readout=readout, participants=PEOPLE, num_regions=2, deviation_rank=2).train()
    output = model(audio(), participant_index=torch.tensor([0, 1, 1]), labels=torch.randn(3, 6))
    output.loss.backward()
    learned = {name for name, value in model.named_parameters() if value.requires_grad}
    reached = {
        name for name, value in model.named_parameters() if value.grad is not None and value.grad.abs().sum() > 0
    }
    # The keys' bias moves all scores alike, which softmax does not see.
    assert learned - {"model.readout.keys.bias"} == reached - {"model.readout.keys.bias"}
    assert output.logits.shape == (3, 6)


def test_without_updates_the_model_hears_what_the_checkpoint_hears(tmp_path):
    speech = Wav2Vec2Model(Wav2Vec2Config(**BODY)).eval()
    speech.save_pretrained(tmp_path)
    model = BrainTunedModel.from_speech_checkpoint(tmp_path)
    torch.testing.assert_close(model(audio()).last_hidden_state, speech(audio()).last_hidden_state)


def test_saving_and_loading_gives_equal_predictions_with_every_auto_class(tmp_path):
    model = build(head="low_rank", readout="regions", participants=PEOPLE, num_regions=2)
    model.set_regions(torch.tensor([1, 0, 1, 0, 1, 0]))
    model.save_pretrained(tmp_path)
    person = torch.tensor([1, 0, 1])
    again = AutoModelForAudioClassification.from_pretrained(tmp_path)
    assert type(again) is BrainTunedForVoxelPrediction
    torch.testing.assert_close(again(audio(), person).logits, model(audio(), person).logits, rtol=0, atol=0)
    body = AutoModel.from_pretrained(tmp_path)
    torch.testing.assert_close(body(audio()).pooled, model.model(audio()).pooled, rtol=0, atol=0)


ELSEWHERE = """
import sys, torch
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('bit_speech', 'configuration_bit', 'modeling_bit', 'processing_bit'):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Block())
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification
extractor = AutoFeatureExtractor.from_pretrained('model', trust_remote_code=True)
clips = extractor([0.0, 1.0] * 16000, tr_times_s=[0.0, 1.0])['input_values']
assert clips.shape == (2, 64000), clips.shape
audio = torch.load('audio.pt', weights_only=True)
model = AutoModelForAudioClassification.from_pretrained('model', trust_remote_code=True).eval()
torch.save(model(audio).logits.detach(), 'logits.pt')
merged = AutoModel.from_pretrained('merged').eval()
assert type(merged).__name__ == 'Wav2Vec2Model'
torch.save(merged(audio).last_hidden_state.detach(), 'frames.pt')
"""


def test_model_and_merged_body_load_where_this_package_is_missing(tmp_path):
    model = build()
    model.save_pretrained(tmp_path / "model")
    StoryFeatureExtractor(clip_s=4.0).save_pretrained(tmp_path / "model")
    model.merge_body().save_pretrained(tmp_path / "merged")
    torch.save(audio(), tmp_path / "audio.pt")
    environment = {"PATH": "", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", ELSEWHERE], check=True, cwd=tmp_path, env=environment)
    logits, frames = (torch.load(tmp_path / name, weights_only=True) for name in ("logits.pt", "frames.pt"))
    torch.testing.assert_close(logits, model(audio()).logits.detach(), rtol=0, atol=0)
    expected = model.model(audio()).last_hidden_state.detach()
    torch.testing.assert_close(frames, expected, atol=1e-5, rtol=1e-4)


def test_a_checkpoint_without_updates_starts_them_at_zero(tmp_path):
    frozen = build(tuning="frozen")
    frozen.save_pretrained(tmp_path)
    tuned = BrainTunedForVoxelPrediction.from_pretrained(tmp_path, tuning="lora")
    torch.testing.assert_close(tuned(audio()).logits, frozen(audio()).logits)
    assert all(m.down.abs().sum() > 0 for m in tuned.model._updates())


def test_training_moves_dropout_of_updates_only():
    model = build(lora_dropout=0.5).train()
    assert not model.model.body.encoder.dropout.training and not model.model.body.training
    assert not torch.equal(model(audio()).logits, model(audio()).logits)


@pytest.mark.parametrize("kind", ["hubert", "wavlm", "data2vec-audio"])
def test_other_bodies_are_tuned_too(kind):
    body = {**BODY, "model_type": kind}
    model = build(body_config=body).train()
    model(audio(), labels=torch.randn(3, 6)).loss.backward()
    assert all(m.up.grad.abs().sum() > 0 for m in model.model._updates())
    merged = model.merge_body()
    torch.testing.assert_close(
        merged(audio()).last_hidden_state, model.eval().model(audio()).last_hidden_state, atol=1e-5, rtol=1e-4
    )


def test_whisper_counts_only_the_frames_of_the_clip():
    body = {
        "model_type": "whisper", "d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "decoder_layers": 1,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_mel_bins": 8,
        "vocab_size": 20, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
    }  # fmt: skip
    model = build(body_config=body).train()
    found = model.model(torch.randn(2, 8, 3000))
    assert found.last_hidden_state.shape == (2, 500, 16)
    assert model(torch.randn(2, 8, 3000), labels=torch.randn(2, 6)).loss.isfinite()


def test_a_new_participant_gets_what_is_shared():
    model = build(head="low_rank", participants=PEOPLE)
    shared = model(audio(), None).logits
    assert not torch.allclose(shared, model(audio(), torch.tensor([0, 0, 0])).logits)
    with torch.no_grad():
        model.head.deviations.zero_()
    torch.testing.assert_close(shared, model(audio(), torch.tensor([0, 0, 0])).logits)


def test_the_learned_response_starts_at_its_canonical_shape():
    model = build(readout="hrf", clip_s=10.0, num_lags=10)
    lags = 10.0 - (torch.arange(10) + 0.5)
    assert int(model.model.readout.lag_logits.argmax()) == int(canonical_hrf(lags).argmax())


@pytest.mark.parametrize("kind", ["l2", "correlation", "cosine_l2", "cosine_huber", "annealed"])
def test_losses_are_least_at_the_truth(kind):
    labels = torch.randn(4, 30, generator=torch.Generator().manual_seed(0))
    perfect = voxel_loss(labels, labels, kind, progress=0.3)
    assert float(perfect) == pytest.approx(0.0, abs=1e-6)
    assert float(voxel_loss(labels + 0.5 * torch.randn(4, 30), labels, kind, progress=0.3)) > 0.01


def test_losses_equal_a_count_by_hand():
    predicted, labels = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    assert float(voxel_loss(predicted, labels, "l2")) == pytest.approx(2.5)
    assert float(voxel_loss(predicted, labels, "l2", torch.tensor([3.0, 1.0]))) == pytest.approx(3.5 / 2)
    assert float(voxel_loss(predicted, labels, "correlation")) == pytest.approx(2.0)
    assert float(voxel_loss(predicted, labels, "cosine_l2")) == pytest.approx(1.0 + 1.25)
    assert float(voxel_loss(predicted, labels, "annealed", progress=0.25)) == pytest.approx(0.75 * 2.5 + 0.25 * 2.0)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"head": "separate"}, "'separate', which needs `participants`"),
        ({"body_config": {"model_type": "bert"}}, "'bert'"),
        ({"lora_targets": ["nothing"]}, "nothing"),
        ({"participants": ["a", "a"]}, "twice"),
        ({"num_regions": 7}, "7, more than the 6 voxels"),
    ],
)
def test_wrong_settings_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        build(**values)


def test_wrong_input_is_named():
    model = build(participants=PEOPLE)
    with pytest.raises(ValueError, match="2 participants"):
        model(audio(), torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match=r"\(3, 5\)"):
        model(audio(), labels=torch.zeros(3, 5))
    with pytest.raises(TypeError, match="attention"):
        model(audio(), attention=1)


def test_convolutions_that_were_kept_give_the_same_predictions():
    model = build()
    kept = model.model.convolve(audio())
    torch.testing.assert_close(model(kept).logits, model(audio()).logits, atol=1e-6, rtol=1e-5)
    with pytest.raises(ValueError, match="body_dropout"):
        build(body_dropout=True).model.convolve(audio())
