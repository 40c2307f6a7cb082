"""Run in a process of its own, where this package cannot be imported: use what the command has published.

Argument: the folder. `used-NAME.npz` gets what every published folder gives with its own code.
"""

import json
import sys
from pathlib import Path

import datasets
import evaluate
import numpy as np
from example_run import PackageBlocker, run_example

sys.meta_path.insert(0, PackageBlocker())
from transformers import pipeline  # noqa: E402

folder = Path(sys.argv[1])
for expected in sorted(folder.glob("example-*.npz")):
    name = expected.stem.removeprefix("example-")
    outputs, modules = run_example(folder / "staged" / name, trust_remote_code=True)
    assert all(module.startswith("transformers_modules.") for module in modules), modules
    np.savez(folder / f"used-{name}.npz", **outputs)

read = pipeline("neural-to-text", model="tester/published", trust_remote_code=True)
trial = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
text = read(trial, participant_id="t15", session_id="t15.2023.08.13")
metric = evaluate.load("tester/bci_wer")
score = metric.compute(predictions=["i can speak"], references=["I can speak!"])
rows = datasets.load_dataset("tester/trials", split="train").with_format("numpy")
(folder / "used.json").write_text(
    json.dumps({"text": text, "wer": score["wer"], "features": [row["features"].tolist() for row in rows]})
)
