"""What the tests of publishing publish: models of every kind, a corpus, a metric."""

import contextlib
import io
import json

import numpy as np

import bit_speech  # noqa: F401  (registers the models with the Auto classes)
from bit_speech.cli import main
from bit_speech.data.conversion import ShardPlan, SourceDescription, run_conversion
from bit_speech.hub.card_facts import CardFacts, Measurements
from bit_speech.hub.example_run import run_example
from bit_speech.hub.model_folder import stage_model

from .models_to_publish import save_models


def say(*arguments):
    with contextlib.redirect_stdout(io.StringIO()) as said:
        status = main(["publish", *arguments])
    return {"status": status, "said": said.getvalue()}


def trial(index):
    return {
        "participant_id": "t15", "session_id": "t15.2023.08.11", "block_index": index, "trial_index": 0,
        "split": "train", "features": np.full((5, 2), index, np.float32), "bin_size_ms": 20.0,
        "feature_kinds": ["threshold_crossings"] * 2, "channel_areas": ["6v"] * 2, "species": "human",
        "task": "attempted_speech", "text": f"secret sentence {index}", "phonemes": None, "source": "tests",
        "licence": "CC-BY-4.0",
    }  # fmt: skip


def publish_everything(folder):
    """Publish with the command; `example-NAME.npz` gets what the installed classes give for every published folder.

    Returns exit status and output of every command.
    """
    names = save_models(folder / "models")
    for name in names:
        staged = folder / "staged" / name
        stage_model(folder / "models" / name, f"tester/{name}", staged, CardFacts(), Measurements(), check=False)
        outputs, modules = run_example(staged, trust_remote_code=False)
        assert not any(module.startswith("transformers_modules") for module in modules)
        np.savez(folder / f"example-{name}.npz", **outputs)

    rate = {"rate": 0.125, "low": 0.1, "high": 0.15, "num_sentences": 200}
    (folder / "models" / "metrics.json").write_text(json.dumps({"split": "test", "per": rate}))
    (folder / "models" / "card.yaml").write_text(
        "licence: apache-2.0\ntask: imagined_speech\nconsent: agreed in writing\n"
    )

    raw = folder / "raw"
    raw.write_text("raw")
    plan = ShardPlan("train", "t15.2023.08.11", {"raw": raw}, 3, lambda: (trial(index) for index in range(3)))
    source = SourceDescription("tests", "Three trials", "CC-BY-4.0", "Made for a test.")
    run_conversion(folder / "trials", [plan], num_channels=2, source=source, progress=False)
    (folder / "card.yaml").write_text("consent: agreed in writing\n")

    model = str(folder / "models" / "ctc")
    results = {
        "dry": say("--data", str(folder / "trials"), "--repo_id", "tester/dry", "--json"),
        "model": say("--model", model, "--repo_id", "tester/published", "--push", "--json"),
        "metric": say("--metric", "wer", "--repo_id", "tester/bci_wer", "--push", "--public"),
        "card alone": say("--data", str(folder / "trials"), "--repo_id", "tester/card", "--push"),
        "recordings": say("--data", str(folder / "trials"), "--repo_id", "tester/trials", "--push", "--with_recordings",
                          "--licence", "cc-by-4.0"),
    }  # fmt: skip
    return results
