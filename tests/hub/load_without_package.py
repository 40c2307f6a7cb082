"""Run in a process of its own, where this package cannot be imported: load what `publish.py` has written.

Argument: the folder. Writes the logits of every loaded model to `loaded.npz`.
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
from transformers import (  # noqa: E402
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForCTC,
    AutoModelForPreTraining,
    AutoProcessor,
    AutoTokenizer,
)

folder = Path(sys.argv[1])
trials = list(np.load(folder / "inputs.npz").values())
loaded = {}


def load(name, source, auto_class=AutoModelForCTC, processor_source=None):
    """Load a model and a processor by name and keep the model's output."""
    model = auto_class.from_pretrained(source, trust_remote_code=True).eval()
    processor = AutoProcessor.from_pretrained(processor_source or source, trust_remote_code=True)
    for thing in (model, processor, processor.feature_extractor, processor.tokenizer):
        assert type(thing).__module__.startswith("transformers_modules."), type(thing)
    inputs = processor(trials, participant_id="t15", session_id="t15.2023.08.13", return_tensors="pt")
    torch.manual_seed(0)  # pretraining draws masks
    with torch.no_grad():
        output = model(**inputs)
    shown = next(output[key] for key in ("logits", "last_hidden_state", "prediction") if key in output)
    loaded[name] = shown.numpy()
    return model, processor


load("encoder", folder / "encoder", AutoModel)
load("encoder-with-processor-of-its-own", folder / "encoder", AutoModel, folder / "processor")
load("pretraining", folder / "pretraining", AutoModelForPreTraining)
load("gru", folder / "gru")
model, processor = load("ctc", folder / "ctc")

config = AutoConfig.from_pretrained(folder / "ctc", trust_remote_code=True)
assert config.participants == {"t15": 6}
extractor = AutoFeatureExtractor.from_pretrained(folder / "processor", trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(folder / "processor", trust_remote_code=True)
assert type(extractor).__name__ == "BITFeatureExtractor" and type(tokenizer).__name__ == "PhonemeTokenizer"
assert tokenizer("HH AH L OW SIL")["input_ids"][-1] == 40

# Saving again what was loaded from a published folder gives a folder that loads.
model.save_pretrained(folder / "saved-again")
processor.save_pretrained(folder / "saved-again")
load("saved-again", folder / "saved-again")

load("trained", "tester/trained")
load("pushed", "tester/pushed")
load("saved-and-pushed", "tester/saved-and-pushed", AutoModel, "tester/pushed")
model, _ = load("pushed-again", "tester/trained")
model.push_to_hub("tester/pushed-again")

np.savez(folder / "loaded.npz", **loaded)
