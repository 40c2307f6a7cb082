"""The pretraining script, from converted folders to an encoder that fine-tunes, and the search for settings."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bit_speech.arguments import ExperimentParser, load_config
from bit_speech.training import BITPretrainingArguments

EXAMPLES = Path(__file__).parents[2] / "examples"
CONFIGS = sorted((EXAMPLES / "configs").glob("pretrain_bit_*.yaml"))
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script():
    from bit_speech.experiments import pretrain

    return pretrain


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A person who speaks and a monkey that reaches, each as a converter leaves them."""
    from bit_speech.data.writing import ShardWriter, dataset_card
    from bit_speech.files import write_text
    from bit_speech.simulation import PRESETS, SimulatedParticipant

    root = tmp_path_factory.mktemp("trials")
    for name, species, electrodes in (("person", "human", 4), ("monkey", "macaque", 3)):
        config = replace(
            PRESETS["demo"],
            participant_id=name,
            species=species,
            task="attempted_speech" if species == "human" else "reaching",
            num_electrodes=electrodes,
            train_sentences=12,
            val_sentences=0,
            test_sentences=0,
            num_sessions=1,
        )
        participant = SimulatedParticipant(config, seed=1)
        with ShardWriter(root / name / "data" / f"train-{name}.parquet", config.num_channels) as writer:
            for trial in participant.trials("train"):
                columns = ("session_id", "block_index", "trial_index", "features", "text", "phonemes")
                writer.add(
                    {
                        **{key: getattr(trial, key) for key in columns},
                        "participant_id": name,
                        "split": "train",
                        "bin_size_ms": 20.0,
                        "feature_kinds": participant.feature_kinds,
                        "channel_areas": participant.channel_areas,
                        "species": species,
                        "task": config.task,
                        "source": "simulated",
                        "licence": "CC0-1.0",
                    }
                )
        counts = {
            "num_trials": writer.summary.num_trials,
            "num_bins": writer.summary.num_bins,
            "num_bytes": writer.summary.num_bytes,
            "num_sessions": 1,
        }
        card = dataset_card(
            title=name,
            licence="CC0-1.0",
            description="Simulated.",
            num_channels=config.num_channels,
            splits={"train": counts},
        )
        write_text(root / name / "README.md", card)
    return root


def flags(folders, output_dir, *more):
    return [
        "--trials",
        str(folders / "person"),
        str(folders / "monkey"),
        f"--corpus={folders / 'corpus'}",
        f"--output_dir={output_dir}",
        f"--model_config={json.dumps(SMALL)}",
        "--max_steps=4",
        "--eval_share=0.3",
        "--per_device_train_batch_size=4",
        "--use_cpu",
        "--disable_tqdm=true",
        *more,
    ]


def test_converted_folders_become_an_encoder_that_fine_tunes_and_the_same_command_continues(script, folders, tmp_path):
    from bit_speech import BITConfig, BITForCTC, load_pretrained_encoder

    scores = script.main(flags(folders, tmp_path))["final_evaluation"]
    assert {"eval_r2", "eval_r2_person", "eval_r2_monkey", "eval_loss"} <= set(scores)
    assert script.main(flags(folders, tmp_path))["final_evaluation"]["eval_loss"] == scores["eval_loss"]
    with pytest.raises(ValueError, match="other learning_rate; choose another output_dir"):
        script.main(flags(folders, tmp_path, "--learning_rate=1e-4"))
    model = BITForCTC(BITConfig.from_pretrained(tmp_path / "model", participants={"person": 8}, mask_ratio=0.0))
    assert load_pretrained_encoder(model, tmp_path / "model", {"person": range(4)}) == {"person": "widened"}


def test_species_participants_and_hours_choose_what_is_learnt(script, folders, tmp_path):
    def corpus(*more):
        (arguments,) = ExperimentParser([script.ExperimentArguments]).parse(
            ["--trials", str(folders / "person"), str(folders / "monkey"), f"--corpus={folders / 'corpus'}", *more]
        )
        return script.read_corpus(arguments)[0]

    everything = corpus("--eval_share=0")
    assert set(everything.participants) == {"person", "monkey"} and len(everything) == 24
    assert set(corpus("--species=macaque").participants) == {"monkey"}
    assert set(corpus("--participants=person").participants) == {"person"}
    half = corpus("--eval_share=0", f"--hours={everything.hours / 2}")
    assert half.hours == pytest.approx(everything.hours / 2, rel=0.2)
    assert [int((half.dataset_index == number).sum()) for number in (0, 1)] == [6, 6]
    with pytest.raises(ValueError, match="more than the"):
        corpus("--hours=100")
    with pytest.raises(ValueError, match=r"no dataset .* is left by species \['cat'\]"):
        corpus("--species=cat")


def test_a_folder_of_conversions_is_all_of_them_and_channels_are_told_apart_by_their_areas(script, tmp_path):
    from ..data_room.test_pretraining_corpus import counts, write

    for folder, areas, channels in (("first", "M1-2", 4), ("first", "PMd-3", 6), ("second", "M1-2", 4)):
        trials = [counts("ann.2024.01.01", 1, trial, 20, channels) for trial in range(2)]
        write(tmp_path / folder / f"{folder}_ann_{areas}", trials)
    write(tmp_path / "alone", [counts("bob.2024.01.01", 1, 0, 20, 4)])
    folders = [str(tmp_path / name) for name in ("first", "second", "alone")]
    found = [(Path(source.folder).name, source.name) for source in script.find_sources(folders)]
    assert found == [
        ("first_ann_M1-2", "ann_M1-2"),
        ("first_ann_PMd-3", "ann_PMd-3"),
        ("second_ann_M1-2", "ann_M1-2"),
        ("alone", None),
    ]
    arguments = script.ExperimentArguments(trials=folders, corpus=str(tmp_path / "corpus"), eval_share=0)
    assert script.read_corpus(arguments)[0].participants == {"ann_M1-2": 2, "ann_PMd-3": 3, "bob": 2}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_is_read_and_says_its_command_and_its_result(script, config):
    from bit_speech import BITConfig, BITForMaskedModeling

    lines = config.read_text().splitlines()
    assert lines[0] == f"# python examples/pretrain_bit.py --config examples/configs/{config.name}"
    assert lines[-1].startswith("# result: ")
    parser = ExperimentParser([script.ExperimentArguments, BITPretrainingArguments])
    arguments, training = parser.parse([f"--config={config}", "--use_cpu"])
    assert BITForMaskedModeling(
        BITConfig(participants={"p": 4}, **(arguments.model_config | {"num_hidden_layers": 1}))
    ).config.mask_ratio == pytest.approx(0.5)
    assert training.seed == load_config(config)["seed"] and training.output_dir == f"runs/{config.stem}"


def test_the_papers_conditions_and_the_controls_have_a_configuration_each():
    names = {path.stem.removeprefix("pretrain_bit_") for path in CONFIGS}
    assert names == {"all", "human", "monkey", "matched_hours", "shuffled", "same_participant"}


def test_the_search_draws_from_the_papers_ranges_and_keeps_the_best(tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    import bit_speech.simulation.intracortical as intracortical
    from bit_speech.training.search import SEARCH_SPACE

    small = {"train_sentences": 9, "val_sentences": 3, "test_sentences": 1, "num_sessions": 1, "num_electrodes": 4}
    monkeypatch.setattr(intracortical, "PRESETS", {"demo": replace(intracortical.PRESETS["demo"], **small)})
    result = load("search_bit").main(
        [
            f"--config={EXAMPLES / 'configs' / 'bit_simulated.yaml'}",
            f"--output_dir={tmp_path}",
            f"--model_config={json.dumps(SMALL)}",
            "--max_steps=1",
            "--eval_steps=1",
            "--warmup_steps=0",
            "--samples=2",
            "--use_cpu",
            "--disable_tqdm=true",
        ]
    )
    assert result == json.loads((tmp_path / "best.json").read_text())
    assert result["per_device_train_batch_size"] in SEARCH_SPACE["per_device_train_batch_size"]
    for name in ("learning_rate", "weight_decay"):
        assert SEARCH_SPACE[name][0] <= result[name] <= SEARCH_SPACE[name][1]


def test_a_corpus_in_the_accelerators_memory_gives_the_same_run(script, folders, tmp_path):
    losses = []
    for resident in ("true", "false"):
        output = tmp_path / resident
        script.main(flags(folders, output, f"--corpus_on_device={resident}", "--logging_steps=1"))
        curve = json.loads((output / "learning_curve.json").read_text())
        losses.append([log["loss"] for log in curve if "loss" in log])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6) and len(losses[0]) == 4
    with pytest.raises(ValueError, match="dataloader_num_workers=2"):
        script.main(flags(folders, tmp_path / "x", "--corpus_on_device=true", "--dataloader_num_workers=2"))
