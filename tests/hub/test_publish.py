"""The command `publish`: what it shows, what it uploads, what it refuses, and that strangers can use the result."""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bit_speech.hub import command, example_run
from bit_speech.hub.card_facts import CardFacts, read_measurements
from bit_speech.hub.metric_space import stage_metric

from .publish_everything import publish_everything

HERE = Path(__file__).parent
KINDS = ["encoder", "pretraining", "ctc", "gru", "wav2vec2", "ieeg_audio", "brain_tuned", "end_to_end"]


def use_published(folder, hub):
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "HF_HOME", "HF_HUB_CACHE")}
    environment |= hub.environment() | {"HF_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    # Away from the repository: a script's own folder is importable.
    for script in (HERE / "use_published.py", Path(example_run.__file__)):
        shutil.copy(script, folder)
    command = [sys.executable, str(folder / "use_published.py"), str(folder)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=230)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]


@pytest.fixture(scope="module")
def published(hub, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    with pytest.MonkeyPatch.context() as patch:
        # `use_published` runs every folder in a clean process; the command's own check has a test below.
        patch.setattr("bit_speech.hub.model_folder.check_in_clean_process", lambda folder: {})
        results = publish_everything(folder)
    use_published(folder, hub)
    return folder, hub, results


@pytest.mark.parametrize("kind", KINDS)
def test_a_published_folder_of_every_kind_runs_where_the_package_is_missing(published, kind):
    folder = published[0]
    with np.load(folder / f"example-{kind}.npz") as expected, np.load(folder / f"used-{kind}.npz") as used:
        assert set(used) == set(expected)
        for name in expected:
            np.testing.assert_allclose(used[name], expected[name], atol=1e-5)


def test_without_push_nothing_is_uploaded(published):
    _, hub, results = published
    plan = json.loads(results["dry"]["said"])
    assert results["dry"]["status"] == 0 and plan["uploaded"] is None
    assert list(plan["files"]) == ["README.md"] and "datasets/tester/dry" not in hub.repositories


def test_the_plan_names_what_stays_and_what_to_think_of(published):
    plan = json.loads(published[2]["model"]["said"])
    assert plan["problems"] == [] and "/commit/" in plan["uploaded"]
    assert set(plan["left_out"]) == {"trainer_state.json", "training_args.bin"}
    assert any("t15.2023.08.11" in note for note in plan["notes"])


def test_a_folder_whose_code_does_not_stand_alone_is_refused(published, tmp_path):
    from bit_speech.hub.clean_process import check_in_clean_process

    shutil.copytree(published[0] / "staged" / "gru", tmp_path / "gru")
    code = tmp_path / "gru" / "modeling_bit_gru.py"
    code.write_text("import bit_speech\n" + code.read_text())
    with pytest.raises(ValueError, match="does not run where this package is missing(?s:.)*bit_speech"):
        check_in_clean_process(tmp_path / "gru")


def test_a_pushed_model_has_weights_processor_decoder_code_and_card_and_no_pickle(published):
    files = published[1].files("tester/published")
    assert {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json"} <= set(files)
    assert {"decoder/lexicon.npz", "decoder/language_model.bin", "decoder/decoder_config.json"} <= set(files)
    assert {"modeling_bit.py", "processing_bit.py", "pipeline_bit.py", "README.md"} <= set(files)
    assert not {"training_args.bin", "trainer_state.json"} & set(files)
    assert published[1].private["tester/published"] is True


def test_the_card_marks_every_figure_and_warns_of_inner_speech(published):
    card = published[1].files("tester/published")["README.md"].decode()
    assert "| phoneme error rate | 12.5 % | 10.0 – 15.0 % | test, 200 sentences | ours |" in card
    assert "| word error rate | – | – | – | not measured |" in card
    assert "trained on imagined speech" in card and "Consent: agreed in writing." in card
    assert "implant | not stated" in card


def test_the_card_has_a_header_that_the_hub_understands(published):
    from huggingface_hub import ModelCard

    data = ModelCard(published[1].files("tester/published")["README.md"].decode()).data
    assert data.license == "apache-2.0" and data.library_name == "transformers"
    assert [(result.metric_type, result.metric_value) for result in data.eval_results] == [("per", 12.5)]


def test_the_pushed_model_reads_a_trial_through_the_pipeline(published):
    used = json.loads((published[0] / "used.json").read_text())
    assert isinstance(used["text"]["text"], str)


def test_a_pushed_metric_scores_without_the_package(published):
    assert json.loads((published[0] / "used.json").read_text())["wer"] == 0.0
    assert published[1].private["spaces/tester/bci_wer"] is False


def test_recordings_stay_at_home_unless_they_are_asked_for(published):
    _, hub, results = published
    assert set(hub.files("datasets/tester/card")) == {".gitattributes", "README.md"}
    assert b"secret sentence" not in hub.files("datasets/tester/card")["README.md"]
    assert results["card alone"]["status"] == 0


def test_recordings_that_were_asked_for_arrive_whole(published):
    used = json.loads((published[0] / "used.json").read_text())
    assert used["features"] == [np.full((5, 2), index).tolist() for index in range(3)]


def publish(*arguments):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(arguments))


def test_recordings_without_a_licence_are_refused(published, tmp_path):
    data = ["--data", str(published[0] / "trials"), "--repo_id", "tester/more", "--with_recordings"]
    with pytest.raises(ValueError, match="--licence"):
        publish(*data, "--output_dir", str(tmp_path / "a"))
    with pytest.raises(ValueError, match="CC-BY-4.0 and cannot be published under cc0-1.0"):
        publish(*data, "--licence", "cc0-1.0", "--output_dir", str(tmp_path / "b"))


def test_recordings_of_a_person_need_what_the_person_agreed_to(published, tmp_path, capsys):
    (tmp_path / "card.yaml").write_text("title: Trials\n")
    status = publish(
        "--data", str(published[0] / "trials"), "--repo_id", "tester/more", "--with_recordings", "--licence",
        "cc-by-4.0", "--card", str(tmp_path / "card.yaml"), "--output_dir", str(tmp_path / "staged"),
    )  # fmt: skip
    assert status == 1
    assert "consent" in capsys.readouterr().out


def test_the_space_of_a_metric_scores_line_by_line(tmp_path, monkeypatch):
    stage_metric("per", "tester/per", tmp_path / "space")
    app = (tmp_path / "space" / "app.py").read_text().replace("import gradio as gr\n", "")
    monkeypatch.syspath_prepend(str(tmp_path / "space"))
    score = {}
    exec(app[: app.index("app = gr.Interface")], score)
    assert score["score"]("HH AY SIL\nN OW", "HH AY SIL\nN AA")["errors"] == 1


def test_a_path_of_this_machine_stands_in_the_way_of_an_upload(published, tmp_path):
    from bit_speech.hub.model_folder import stage_model
    from bit_speech.hub.publishing import push

    model = tmp_path / "model"
    shutil.copytree(published[0] / "models" / "gru", model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"pretrained_from": str(tmp_path / "secret" / "run")}))
    facts = CardFacts(licence="mit")
    staged = stage_model(model, "tester/x", tmp_path / "staged", facts, read_measurements([]), check=False)
    with pytest.raises(ValueError, match="nothing was uploaded.*pretrained_from names the path"):
        push(staged)


@pytest.mark.parametrize(
    "missing, reason",
    [("processor_config.json", "holds no processor"), ("model.safetensors", "holds no .safetensors")],
)
def test_half_a_model_is_refused(missing, reason, published, tmp_path):
    from bit_speech.hub.model_folder import stage_model

    shutil.copytree(published[0] / "models" / "gru", tmp_path / "model")
    (tmp_path / "model" / missing).unlink()
    with pytest.raises(FileNotFoundError, match=reason):
        stage_model(tmp_path / "model", "tester/x", tmp_path / "staged", CardFacts(), read_measurements([]))


def test_a_published_figure_needs_its_source(tmp_path):
    (tmp_path / "card.yaml").write_text("published:\n  - {metric: wer, value: 0.1, split: test}\n")
    with pytest.raises(ValueError, match="source of every figure"):
        CardFacts.from_yaml(tmp_path / "card.yaml")


def test_the_example_of_a_card_is_a_card(tmp_path):
    (tmp_path / "card.yaml").write_text(command.EXAMPLE)
    assert CardFacts.from_yaml(tmp_path / "card.yaml").published[0]["value"] == 0.067


def push_metric(folder):
    from bit_speech.hub.publishing import push

    return push(stage_metric("wer", "tester/refused", folder))


def test_without_a_token_the_hub_says_how_to_log_in(hub, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no_token"))
    with pytest.raises(PermissionError, match="hf auth login"):
        push_metric(tmp_path / "staged")
    assert "spaces/tester/refused" not in hub.repositories


@pytest.mark.parametrize("offline", [True, False])
def test_a_hub_that_cannot_be_reached_is_said_to_be_so(offline, hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # taken, and nobody listens
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(ConnectionError, match="cannot be reached"):
            push_metric(tmp_path / "staged")


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["--model", "nowhere", "--repo_id", "a/b"], "holds no config.json"),
        (["--model", "nowhere"], "--repo_id is missing"),
        (["--metric", "wer", "--repo_id", "no_owner"], "needs an owner"),
        (["--metric", "wer", "--repo_id", "a/b", "--with_recordings"], "--with_recordings goes with --data"),
    ],
)
def test_what_cannot_be_published_is_refused_with_the_reason(arguments, reason, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=reason):
        publish(*arguments, "--output_dir", str(tmp_path / "staged"))
