"""The main job in one test: raw files of an official layout in, scored sentences and a report out."""

import json
from dataclasses import replace

import pytest

from bit_speech import BITConfig, BITFeatureExtractor, BITForCTC, BITProcessor, PhonemeTokenizer
from bit_speech.cli import main
from bit_speech.data import load_trials
from bit_speech.decoding import BeamSearchDecoder, Lexicon
from bit_speech.scoring import transcribe
from bit_speech.simulation import (
    PRESETS,
    IdealObserver,
    SimulatedParticipant,
    pronounce,
    write_brain_to_text_24,
    write_brain_to_text_25,
)
from bit_speech.training import BITTrainer, BITTrainingArguments

SMALL = replace(
    PRESETS["demo"], train_sentences=16, val_sentences=4, test_sentences=4, num_sessions=1, max_words=4, tuning_gain=0.5
)


@pytest.fixture(scope="module")
def participant():
    return SimulatedParticipant(SMALL, seed=3)


@pytest.fixture(scope="module")
def lexicon_file(participant, tmp_path_factory):
    spelled = ("a", "the", "to", "i", "you", "is", "it", "he", "she", "we", "they", "was", "of", "and", "in", "that")
    words = {word: pronounce(word)[:-1] for word in spelled}
    path = tmp_path_factory.mktemp("lexicon") / "lexicon.txt"
    path.write_text("".join(f"{word}\t{' '.join(phones)}\n" for word, phones in words.items()))
    return path


def train_briefly(trials, output):
    first = trials["train"][0]
    participants = {first["participant_id"]: first["features"].shape[1]}
    trainer = BITTrainer(
        model=BITForCTC(
            BITConfig(
                participants=participants,
                hidden_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=32,
                patch_stride=3,
            )
        ),
        args=BITTrainingArguments(
            output_dir=str(output), max_steps=2, per_device_train_batch_size=4, use_cpu=True, eval_strategy="no",
            save_strategy="no", load_best_model_at_end=False, disable_tqdm=True,
        ),
        train_dataset=trials["train"],
        processing_class=BITProcessor(
            BITFeatureExtractor(participants=participants, normalization="none"), PhonemeTokenizer()
        ),
    )  # fmt: skip
    trainer.train()
    trainer.save_model(str(output / "model"))


def test_raw_files_become_scored_sentences_and_a_report(participant, lexicon_file, tmp_path):
    write_brain_to_text_25(participant, tmp_path / "hdf5_data_final")
    arguments = [
        "--input_dir",
        str(tmp_path / "hdf5_data_final"),
        "--output_dir",
        str(tmp_path / "trials"),
        "--allow_partial",
    ]
    assert main(["convert", "brain_to_text_25", *arguments]) == 0
    trials = load_trials(tmp_path / "trials")
    assert [len(trials[split]) for split in ("train", "validation", "test")] == [16, 4, 4]
    assert list(trials["validation"]["text"]) == participant.sentences("val")
    train_briefly(trials, tmp_path / "run")

    arguments = [
        "--model",
        str(tmp_path / "run" / "model"),
        "--trials",
        str(tmp_path / "trials"),
        "--output_dir",
        str(tmp_path / "scored"),
    ]
    assert main(["evaluate", *arguments, "--lexicon", str(lexicon_file)]) == 0
    metrics = json.loads((tmp_path / "scored" / "metrics.json").read_text())
    assert metrics["per"]["num_sentences"] == metrics["wer"]["num_sentences"] == 4
    assert len((tmp_path / "scored" / "predictions.jsonl").read_text().splitlines()) == 4
    assert (tmp_path / "scored" / "report" / "report.html").stat().st_size > 10_000


def test_the_2024_layout_takes_the_same_road(participant, tmp_path):
    write_brain_to_text_24(participant, tmp_path / "competitionData")
    arguments = [
        "--input_dir",
        str(tmp_path / "competitionData"),
        "--output_dir",
        str(tmp_path / "trials"),
        "--allow_partial",
    ]
    assert main(["convert", "brain_to_text_24", *arguments]) == 0
    trials = load_trials(tmp_path / "trials")
    assert len(trials["train"]) == 16
    assert trials["train"][0]["features"].shape[1] == 256


def test_the_ideal_observer_reads_clear_signals_nearly_without_error(participant):
    observer = IdealObserver(participant)
    truth = list(participant.trials("test"))
    words = {word for trial in truth for word in trial.text.lower().replace("’", "'").split()}
    lexicon = Lexicon.from_words({word.strip('.,!?"'): " ".join(pronounce(word)[:-1]) for word in words})
    found = transcribe(
        [observer.log_probs(trial) for trial in truth],
        BeamSearchDecoder(lexicon, None),
        texts=[trial.text for trial in truth],
        phonemes=[trial.phonemes for trial in truth],
    )
    assert float(found.per) < 0.1
    assert float(found.wer) < 0.2


def test_a_missing_split_is_refused_with_the_splits_that_exist(participant, tmp_path, capsys):
    write_brain_to_text_25(participant, tmp_path / "hdf5_data_final")
    arguments = [
        "--input_dir",
        str(tmp_path / "hdf5_data_final"),
        "--output_dir",
        str(tmp_path / "trials"),
        "--allow_partial",
    ]
    main(["convert", "brain_to_text_25", *arguments])
    capsys.readouterr()
    assert main(["evaluate", "--model", "nowhere", "--trials", str(tmp_path / "trials"), "--split", "dev"]) == 2
    assert "no split 'dev'; it has" in capsys.readouterr().err
