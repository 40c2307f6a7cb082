import json

import numpy as np
import pytest
import torch
from transformers import set_seed

from bit_speech.data.aligned_segments import WindowSet
from bit_speech.training.ieeg_audio_trainer import IEEGAudioTrainer, IEEGAudioTrainingArguments
from bit_speech.training.window_batches import WindowBatches, WindowBatchSampler, scale_windows
from configuration_bit.configuration_ieeg_audio import IEEGAudioConfig
from modeling_bit.modeling_ieeg_audio import IEEGAudioForRetrieval
from processing_bit.feature_extraction_ieeg import IEEGFeatureExtractor
from processing_bit.processing_ieeg_audio import IEEGAudioProcessor


def windows(count=48, channels=4, participant="s1", seed=0):
    """The sound of a window is the mean of its channels, so a small network finds it."""
    rng = np.random.default_rng(seed)
    ieeg = (rng.normal(size=(count, 1, channels)) + 0.3 * rng.normal(size=(count, 12, channels))).astype(np.float32)
    names = {
        "participant": participant,
        "session": "day0",
        "split": "train",
        "condition": "ambient",
    }
    return WindowSet(
        ieeg=ieeg,
        targets=(3 * ieeg.mean(axis=1) + 5)[:, :3],
        speech=np.ones(count, np.float32),
        start_s=np.arange(count) * 0.3,
        file=np.repeat(["a", "b"], count // 2),
        **{key: np.full(count, value) for key, value in names.items()},
    )


def parts(sets, **changes):
    set_seed(0)
    participants = {str(part.participant[0]): part.ieeg.shape[2] for part in sets}
    settings = {"initial_size": 6, "hidden_size": 8, "num_hidden_layers": 2, "pool_size": 4, "window_bins": 12}
    config = IEEGAudioConfig(participants=participants, embedding_size=3, sessions=["day0"], **{**settings, **changes})
    extractor = IEEGFeatureExtractor(participants, ["day0"], window_s=0.3)
    extractor.fit({str(part.participant[0]): [part.ieeg.reshape(-1, part.ieeg.shape[2])] for part in sets})
    processor = IEEGAudioProcessor(extractor)
    processor.fit_targets(np.concatenate([part.targets for part in sets]))
    return IEEGAudioForRetrieval(config), processor


def trainer(tmp_path, sets=None, held_out=None, model=None, processor=None, **changes):
    sets = [windows()] if sets is None else sets
    if model is None:
        model, processor = parts(sets)
    settings = {
        "output_dir": str(tmp_path),
        "use_cpu": True,
        "per_device_train_batch_size": 16,
        "num_train_epochs": 10,
        "learning_rate": 1e-2,
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "eval_strategy": "no",
        "disable_tqdm": True,
        **changes,
    }
    return IEEGAudioTrainer(model, IEEGAudioTrainingArguments(**settings), processor, sets, held_out)


def test_a_run_learns_and_leaves_a_model_that_can_be_used(tmp_path):
    held_out = windows(seed=1)
    run = trainer(tmp_path, held_out=held_out, num_train_epochs=25)
    before = run.evaluate()["eval_rank"]
    run.train()
    after = run.evaluate()
    assert before > 0.2 and after["eval_rank"] < 0.1 and after["eval_num_candidates"] == 48
    run.save_model(str(tmp_path / "model"))
    model = IEEGAudioForRetrieval.from_pretrained(tmp_path / "model").eval()
    processor = IEEGAudioProcessor.from_pretrained(tmp_path / "model")
    found = model(torch.from_numpy(scale_windows(held_out, processor))).embedding
    np.testing.assert_allclose(found.detach().numpy(), run.embed(held_out), rtol=1e-4, atol=1e-4)
    record = json.loads((tmp_path / "metrics.json").read_text())
    assert record["windows"]["train"][0]["files"] == 2 and record["training_bins"] == 25 * 48 * 12


def test_a_further_target_is_learnt_and_ranked_beside_the_sound(tmp_path):
    sets = [windows(), windows(seed=1)]
    for part in sets:  # the last channel's mean is in it, which the sound does not tell
        part.targets = np.concatenate([part.targets, part.ieeg.mean(axis=1)[:, :0:-1]], axis=1)
    model, processor = parts(sets[:1], extra_targets={"text": 3}, output_layers="narrow_last", output_size=8)
    run = trainer(tmp_path, sets[:1], sets[1], model, processor, num_train_epochs=25)
    before = run.evaluate()
    run.train()
    after = run.evaluate()
    assert before["eval_rank_text"] > 0.2 and after["eval_rank_text"] < 0.1 and after["eval_rank"] < 0.1
    assert run.embed(sets[1], "text").shape == run.wanted(sets[1], "text").shape == (48, 3)
    np.testing.assert_allclose(run.wanted(sets[1], "text").mean(), 0.0, atol=0.5)
    with pytest.raises(ValueError, match="no target 'video': choose audio or one of .'text'."):
        run.embed(sets[1], "video")


def test_places_and_regions_of_the_channels_reach_the_model(tmp_path):
    model, processor = parts([windows()], read_in="position", position_frequencies=2, regions=["A1", "44"])
    extractor = processor.feature_extractor
    with pytest.raises(ValueError, match="regions"):
        trainer(tmp_path, [windows()], None, model, processor)
    extractor.regions, extractor.channel_regions = ["A1", "44"], {"s1": ["44", "A1", "unnamed", "A1"]}
    extractor.channel_positions = {"s1": np.eye(4, 3).tolist()}
    batch = WindowBatches([windows()], processor).collate([(0, 3), (0, 5)])
    assert batch["channel_positions"].shape == (2, 4, 3) and batch["channel_regions"].tolist() == [[1, 0, -1, 0]] * 2
    run = trainer(tmp_path, [windows()], None, model, processor, num_train_epochs=1)
    run.train()
    assert run.model.encoder.read_in.regions.abs().sum() > 0


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path):
    whole = trainer(tmp_path / "whole", save_strategy="steps", save_steps=10)
    whole.train()
    again = trainer(tmp_path / "whole")
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-20"))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


@pytest.mark.parametrize("mode", ["head", "full", "head_then_full"])
def test_finetuning_trains_what_its_mode_says(tmp_path, mode):
    run = trainer(tmp_path, finetune_mode=mode, num_train_epochs=2)
    trunk = {name: value.clone() for name, value in run.model.encoder.state_dict().items()}
    changed_early = []

    def unchanged():
        state = run.model.encoder.state_dict()
        return all(torch.equal(value, state[name]) for name, value in trunk.items() if not name.startswith("head."))

    step = run.training_step
    run.training_step = lambda *args, **kw: (changed_early.append(not unchanged()), step(*args, **kw))[1]
    run.train()
    assert not torch.equal(run.model.encoder.head.weight, torch.eye(3))
    assert unchanged() == (mode == "head")
    assert changed_early[1] == (mode == "full") and changed_early[-1] == (mode != "head")
    rates = {group["name"]: group["lr"] for group in run.optimizer.param_groups}
    assert {"head", "body"} <= set(rates)


def test_participants_with_other_channels_train_together(tmp_path):
    sets = [windows(), windows(participant="s2", channels=7, seed=2)]
    run = trainer(tmp_path, sets=sets, held_out=sets, num_train_epochs=30)
    run.train()
    assert run.evaluate()["eval_rank"] < 0.2


def test_every_window_comes_once_an_epoch_in_an_order_of_seed_and_epoch():
    sampler = WindowBatchSampler([20, 7, 3], 5, seed=1)
    batches = list(sampler)
    assert len(batches) == len(sampler) == 6 and all(len({number for number, _ in batch}) == 1 for batch in batches)
    assert sorted(i for batch in batches for number, i in batch if number == 0) == list(range(20))
    assert list(WindowBatchSampler([20, 7, 3], 5, seed=1)) == batches
    sampler.set_epoch(1)
    assert list(sampler) != batches
    shares = [list(WindowBatchSampler([20, 7, 3], 5, seed=1, num_processes=4, process_index=i)) for i in range(4)]
    assert {len(share) for share in shares} == {2}
    assert {tuple(batch) for share in shares for batch in share} == {tuple(batch) for batch in batches}
    in_order = WindowBatchSampler([4, 3], 3, shuffle=False)
    assert list(in_order) == [[(0, 0), (0, 1), (0, 2)], [(0, 3)], [(1, 0), (1, 1), (1, 2)]] and len(in_order) == 3


def test_running_scaling_sees_the_windows_of_a_file_in_order_of_time():
    part = windows()
    _, processor = parts([part])
    processor.feature_extractor.normalization = "running"
    order = np.random.default_rng(0).permutation(len(part))
    np.testing.assert_array_equal(scale_windows(part.select(order), processor), scale_windows(part, processor)[order])


def test_what_does_not_fit_is_refused(tmp_path):
    model, processor = parts([windows()])
    with pytest.raises(ValueError, match="s9"):
        WindowBatches([windows(participant="s9")], processor)
    other = parts([windows(channels=5)])[0]
    with pytest.raises(ValueError, match="the model reads"):
        trainer(tmp_path, model=other, processor=processor)
    with pytest.raises(ValueError, match="finetune_mode"):
        trainer(tmp_path, finetune_mode="half")
    with pytest.raises(ValueError, match="eval_dataset"):
        trainer(tmp_path).evaluate()
