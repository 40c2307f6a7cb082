"""Run in a process of its own, where this package cannot be imported: load models and keep their logits.

Argument: a folder with `inputs.npy` and one saved model in each sub-folder.
"""

import importlib.abc
import sys
from pathlib import Path


class Blocker(importlib.abc.MetaPathFinder):
    """Makes the package unfindable, however it is installed."""

    def find_spec(self, fullname, path=None, target=None):
        """Refuse our own packages."""
        if fullname.split(".")[0] in ("configuration_bit", "modeling_bit", "processing_bit", "bit_speech"):
            raise ModuleNotFoundError(f"No module named {fullname!r} (blocked)", name=fullname)
        return None


sys.meta_path.insert(0, Blocker())

import numpy as np  # noqa: E402
import torch  # noqa: E402
from transformers import AutoModelForCTC, AutoProcessor  # noqa: E402

folder = Path(sys.argv[1])
inputs = torch.from_numpy(np.load(folder / "inputs.npy"))
logits = {}
for cell in sorted(path for path in folder.iterdir() if path.is_dir() and (path / "config.json").is_file()):
    model = AutoModelForCTC.from_pretrained(cell, trust_remote_code=True).eval()
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    with torch.no_grad():
        logits[cell.name] = model(input_features=inputs).logits.numpy()
    processor = AutoProcessor.from_pretrained(cell, trust_remote_code=True)
    assert type(processor.tokenizer).__name__ == "SpellingTokenizer"
    assert processor(text=["hi"])["labels"].tolist() == [[11, 10]]
np.savez(folder / "logits.npz", **logits)
