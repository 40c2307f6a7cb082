"""Run in a process of its own: save every class, and push a trained model to the stand-in of the Hub.

Argument: the folder to write to. `inputs.npz` there holds the trials; `expected.npz` gets the logits of each model.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCTC, AutoProcessor, Trainer, TrainingArguments

from bit_speech import (
    BITConfig,
    BITFeatureExtractor,
    BITForCTC,
    BITForMaskedModeling,
    BITGRUConfig,
    BITGRUForCTC,
    BITModel,
    BITProcessor,
    PhonemeTokenizer,
)

folder = Path(sys.argv[1])
trials = list(np.load(folder / "inputs.npz").values())
participants, sessions = {"t12": 4, "t15": 6}, ["t15.2023.08.11", "t15.2023.08.13"]
processor = BITProcessor(
    BITFeatureExtractor(participants={"t15": 6}, sessions=sessions, normalization="none"), PhonemeTokenizer()
)
inputs = processor(trials, participant_id="t15", session_id=sessions[1], return_tensors="pt")
small = {"hidden_size": 16, "num_hidden_layers": 2}
models = {
    "encoder": BITModel(BITConfig(participants={"t15": 6}, num_attention_heads=2, **small)),
    "ctc": BITForCTC(
        BITConfig(participants={"t15": 6}, sessions=sessions, read_in="session", num_attention_heads=2, **small)
    ),
    "pretraining": BITForMaskedModeling(
        BITConfig(participants={"t15": 6}, num_attention_heads=2, mask_ratio=0.5, **small)
    ),
    "gru": BITGRUForCTC(BITGRUConfig(participants={"t15": 6}, sessions=sessions, **small)),
}


def run(model: torch.nn.Module) -> np.ndarray:
    """Output of a model in evaluation."""
    torch.manual_seed(0)  # pretraining draws masks
    with torch.no_grad():
        output = model.eval()(**inputs)
    return next(output[key] for key in ("logits", "last_hidden_state", "prediction") if key in output).numpy()


expected = {}
for name, model in models.items():
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder / name)
    processor.save_pretrained(folder / name)
    expected[name] = run(model)
processor.save_pretrained(folder / "processor")

labels = processor(text=["go on"] * len(trials), return_tensors="pt")["labels"]
rows = [{**{key: value[i] for key, value in inputs.items()}, "labels": labels[i]} for i in range(len(trials))]
trainer = Trainer(
    model=models["ctc"],
    args=TrainingArguments(
        output_dir=str(folder / "run"), max_steps=2, per_device_train_batch_size=2, report_to=[], disable_tqdm=True,
        hub_model_id="tester/trained", push_to_hub=True, hub_strategy="end", save_strategy="no", use_cpu=True,
        remove_unused_columns=False,
    ),
    train_dataset=rows,
    processing_class=processor,
)  # fmt: skip
trainer.train()
trainer.push_to_hub()
expected["trained"] = run(trainer.model)
models["gru"].push_to_hub("tester/pushed")
processor.push_to_hub("tester/pushed")
models["encoder"].save_pretrained(folder / "and_push", push_to_hub=True, repo_id="tester/saved-and-pushed")

# With the package there, the installed classes are used and no trust is asked.
assert type(AutoModelForCTC.from_pretrained(folder / "ctc")) is BITForCTC
assert type(AutoProcessor.from_pretrained(folder / "ctc")) is BITProcessor
np.savez(folder / "expected.npz", **expected)
