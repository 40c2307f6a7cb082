"""Settings follow the size of the data, checkpoints are carried over, and what cannot be trained on is refused."""

import numpy as np
import pytest
import torch

from bit_speech import BITConfig, BITForCTC, BITModel
from bit_speech.cli import main
from bit_speech.data.conversion import ShardPlan, SourceDescription, run_conversion
from bit_speech.evaluation.data_report import describe_data, write_data_report
from bit_speech.finetuning import FinetuneArguments, _base_config, _build, choose_settings

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def trial(session="p.1", block=0, index=0, split="train", text="go on", features=None, **changes):
    if features is None:
        features = np.random.default_rng([block, index]).poisson(2.0, (40, 3)).astype(np.float32)
    return {
        "participant_id": "p", "session_id": session, "block_index": block, "trial_index": index, "split": split,
        "features": features, "bin_size_ms": 20.0, "feature_kinds": ["threshold_crossings"] * 3,
        "channel_areas": ["6v"] * 3, "species": "human", "task": "attempted_speech", "text": text, "phonemes": None,
        "source": "tests", "licence": "CC0-1.0", **changes,
    }  # fmt: skip


def write_trials(folder, rows):
    raw = folder.with_suffix(".raw")
    raw.parent.mkdir(parents=True, exist_ok=True)
    raw.write_text("raw")
    keys = dict.fromkeys((row["split"], row["session_id"]) for row in rows)
    plans = [
        ShardPlan(split, session, {"raw": raw}, len(chosen), lambda chosen=chosen: iter(chosen))
        for split, session in keys
        for chosen in [[row for row in rows if (row["split"], row["session_id"]) == (split, session)]]
    ]
    run_conversion(folder, plans, num_channels=3, source=SourceDescription("t", "T", "CC0-1.0", "T."), progress=False)
    return folder


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    from bit_speech.data import load_trials

    rows = []
    for day, shift in (("p.1", 0.0), ("p.2", 3.0)):
        for index in range(4):
            features = np.tile([[0.0 + shift, 5.0, 0.0], [2.0 + shift, 5.0, 1.0]], (20, 1)).astype(np.float32)
            split = "train" if index < 3 else "validation"
            text = f"{['one', 'two', 'three', 'four'][index]} {'again' if index else 'now'}"
            rows.append(trial(day, index, index, split, text, features))
    folder = tmp_path_factory.mktemp("data") / "trials"
    return load_trials(write_trials(folder, rows), cache_dir=tmp_path_factory.mktemp("cache"))


def test_the_data_report_counts_what_can_be_counted_by_hand(trials):
    report = describe_data(trials)
    assert [session.dead_channels for session in report.sessions] == [[1], [1]]
    # Means 1, 5, 0.5 per bin of 20 ms are 50, 250 and 25 a second; channel 1 is dead.
    assert report.sessions[0].rate_hz == pytest.approx((50 + 25) / 2)
    # Channel 0 moves by 3 with a standard deviation of 1, channel 2 does not move: the median is 1.5.
    assert report.sessions[1].drift == pytest.approx(1.5)
    assert report.drift.tolist() == pytest.approx(np.array([[0, 1.5], [1.5, 0]]))
    assert report.splits["train"] == {"num_trials": 6, "minutes": 0.08, "num_sentences": 3, "num_labelled": 6}
    # Validation says "four again" twice; "four" is in no training sentence.
    assert report.unseen_words == 0.5


def test_the_data_report_warns_of_drift_and_of_little_data(trials):
    warnings = " ".join(describe_data(trials).warnings)
    assert "1.5 standard deviations into p.2" in warnings and "6 training sentences are few" in warnings


def test_the_data_report_names_sentences_in_two_splits(tmp_path):
    from bit_speech.data import load_trials

    rows = [trial(block=0, text="go on"), trial(block=1, index=1, split="test", text="Go on!")]
    report = describe_data(load_trials(write_trials(tmp_path / "t", rows), cache_dir=tmp_path / "c"))
    assert report.leakage.trials_affected == {"train": 1, "test": 1}
    assert any("'go on' in train and test" in warning for warning in report.warnings)


def test_the_page_of_the_data_report_holds_its_figures_and_no_address(trials, tmp_path):
    page = write_data_report(tmp_path, describe_data(trials), "Recordings of <p>").read_text()
    assert page.count("data:image/png;base64,") == 4 and "http" not in page
    assert "Recordings of &lt;p&gt;" in page


@pytest.mark.parametrize("minutes, hidden", [(20, 128), (200, 192), (1000, None)])
def test_more_data_gets_a_larger_encoder(minutes, hidden):
    assert choose_settings(minutes, 1000, "raw", 3.0).model.get("hidden_size") == hidden


def test_epochs_are_as_many_as_give_the_wanted_updates():
    settings = choose_settings(20, 400, "raw", 3.0)
    assert settings.num_train_epochs * 400 / settings.per_device_train_batch_size == 2000


def test_fast_speech_gets_closer_frames_and_slow_speech_does_not():
    assert choose_settings(20, 400, "raw", 1.3).model["patch_stride"] == 3
    assert "patch_stride" not in choose_settings(20, 400, "raw", 4.0).model


def build(trials, base):
    arguments = FinetuneArguments(data="x", base=str(base))
    config = _base_config(str(base))
    settings = choose_settings(1.0, 6, "raw", 4.0, config)
    return _build(arguments, settings, trials["train"], config)[0]


def test_a_checkpoint_gives_its_encoder_and_its_phoneme_head(trials, tmp_path):
    torch.manual_seed(0)
    before = BITForCTC(BITConfig(participants={"other": 7}, **SMALL))
    before.save_pretrained(tmp_path)
    after = build(trials, tmp_path)
    assert after.config.participants == {"p": 3}
    assert torch.equal(after.head["p"].weight, before.head["other"].weight)
    for name, value in before.encoder.layers.state_dict().items():
        assert torch.equal(after.encoder.layers.state_dict()[name], value)


def test_a_checkpoint_of_the_same_participant_gives_its_read_in_too(trials, tmp_path):
    before = BITModel(BITConfig(participants={"p": 3}, **SMALL))
    before.save_pretrained(tmp_path)
    after = build(trials, tmp_path)
    assert torch.equal(after.encoder.read_in["p"].projection.weight, before.read_in["p"].projection.weight)


def test_a_checkpoint_with_other_channels_of_the_same_participant_is_refused(trials, tmp_path):
    BITModel(BITConfig(participants={"p": 9}, **SMALL)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'p' has 9 channels in --base and 3 now"):
        build(trials, tmp_path)


def test_a_checkpoint_of_another_kind_is_refused(tmp_path):
    from bit_speech import BITGRUConfig

    BITGRUConfig(participants={"p": 3}).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="bit_speech_gru"):
        _base_config(str(tmp_path))


@pytest.mark.parametrize(
    "files, reason",
    [
        (["a.npz"], "neither trials nor a YAML file"),
        (["a.yaml", "b.yaml"], "a.yaml, b.yaml; leave one"),
    ],
)
def test_a_folder_that_does_not_say_what_it_holds_is_refused(files, reason, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in files:
        (tmp_path / "in" / name).write_text("x")
    assert main(["finetune", "--data", str(tmp_path / "in"), "--output_dir", str(tmp_path / "out")]) == 2
    assert reason in capsys.readouterr().err


def test_blocks_are_held_out_when_nothing_is(tmp_path, capsys):
    rows = [trial(block=block, text=f"sentence {number}") for block, number in enumerate("abcdefgh")]
    data = write_trials(tmp_path / "trials", rows)
    arguments = ["--data", str(data), "--output_dir", str(tmp_path / "out"), "--check_only"]
    assert main(["finetune", *arguments]) == 0
    said = capsys.readouterr().out
    assert "held out for validation" in said and not (tmp_path / "out" / "model").exists()
