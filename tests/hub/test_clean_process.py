"""Published folders load where this package does not exist, and give the same numbers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from .fake_hub import FakeHub

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def run_script(name: str, folder: Path, hub: FakeHub, with_package: bool) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "HF_HOME", "HF_HUB_CACHE")}
    environment |= hub.environment() | {"HF_HOME": str(folder / f"home-{name}"), "OMP_NUM_THREADS": "1"}
    if with_package:
        environment["PYTHONPATH"] = str(ROOT)
    script = folder / f"{name}.py"  # away from the repository: a script's own folder is importable
    script.write_text((HERE / f"{name}.py").read_text(encoding="utf-8"), encoding="utf-8")
    command = [sys.executable, str(script), str(folder)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    generator = np.random.default_rng(0)
    trials = {f"trial{i}": generator.normal(size=(bins, 6)).astype(np.float32) for i, bins in enumerate((90, 61))}
    np.savez(folder / "inputs.npz", **trials)
    with FakeHub() as hub:
        run_script("publish", folder, hub, with_package=True)
        run_script("load_without_package", folder, hub, with_package=False)
        yield folder, hub, dict(np.load(folder / "expected.npz")), dict(np.load(folder / "loaded.npz"))


@pytest.mark.parametrize("name", ["encoder", "pretraining", "ctc", "gru"])
def test_a_saved_folder_gives_the_same_output_where_the_package_is_missing(published, name):
    _, _, expected, loaded = published
    np.testing.assert_array_equal(loaded[name], expected[name])


def test_a_processor_folder_of_its_own_works_too(published):
    _, _, expected, loaded = published
    np.testing.assert_array_equal(loaded["encoder-with-processor-of-its-own"], expected["encoder"])


def test_a_trained_model_pushed_by_the_trainer_gives_the_same_output(published):
    _, _, expected, loaded = published
    np.testing.assert_array_equal(loaded["trained"], expected["trained"])


@pytest.mark.parametrize("pushed, saved", [("pushed", "gru"), ("saved-and-pushed", "encoder")])
def test_pushed_models_give_the_same_output(published, pushed, saved):
    _, _, expected, loaded = published
    np.testing.assert_array_equal(loaded[pushed], expected[saved])


def test_a_folder_saved_again_by_a_model_without_the_package_still_loads(published):
    _, _, expected, loaded = published
    np.testing.assert_array_equal(loaded["saved-again"], expected["ctc"])


def test_a_model_pushed_again_without_the_package_carries_its_code(published):
    _, hub, _, _ = published
    again = hub.files("tester/pushed-again")
    assert {"modeling_bit.py", "configuration_bit.py", "layers_bit.py", "remote_code_bit.py"} <= set(again)
    auto_map = json.loads(again["config.json"])["auto_map"]
    assert auto_map["AutoModelForCTC"].endswith("modeling_bit.BITForCTC")


def test_the_pushed_repository_has_everything_and_nothing_that_runs_on_unpickling(published):
    _, hub, _, _ = published
    files = hub.files("tester/pushed")
    assert {"config.json", "model.safetensors", "processor_config.json", "tokenizer_config.json"} <= set(files)
    assert {"modeling_bit_gru.py", "processing_bit.py", "feature_extraction_bit.py"} <= set(files)
    assert not [name for name in files if name.endswith((".bin", ".pkl", ".pt"))]
