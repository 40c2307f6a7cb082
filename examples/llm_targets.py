"""Write layers of a language model as if they were somebody's BOLD: tuning to text instead of brains, as a control.

    python examples/llm_targets.py --stories runs/lebel_fs --language_model meta-llama/Llama-2-7b-hf --layers 20 22 24
    python examples/brain_tune.py --speech_checkpoint facebook/wav2vec2-base --stories runs/lebel_fs --participants llm

The words of a story pass the language model; what its layers hold at each word is averaged over layers, low-pass
filtered to the volumes of one participant, and z-scored. The run has as many "voxels" as the language model is wide.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.hf_argparser import HfArg

from bit_speech.arguments import ExperimentParser
from bit_speech.data.story_runs import Interval, StoryRun, list_runs, read_run, read_words, write_run
from bit_speech.data.story_time import lanczos_resample, zscore


@dataclass
class TargetArguments:
    """Which language model reads which stories."""

    _show_all_settings = True

    stories: str | None = HfArg(default=None, help="Folder of stories with aligned words.")
    language_model: str | None = HfArg(default=None, help="Folder or Hub name of a causal language model.")
    layers: list[int] = HfArg(default_factory=lambda: [-1], help="Hidden states to average; -1 is the last.")
    like: str | None = HfArg(default=None, help="Whose stories and clocks; default the first participant.")
    participant: str = HfArg(default="llm", help="Name of the participant that is written.")
    context: int = HfArg(default=512, help="Tokens that the language model reads at once; each window repeats half.")


@torch.no_grad()
def read_story_aloud(model: Any, tokenizer: Any, words: list[Interval], arguments: TargetArguments) -> np.ndarray:
    """Mean of the layers at the last token of every word, of shape (words, D)."""
    tokens, last = [], []
    for position, word in enumerate(words):
        text = word.text if position == 0 else f" {word.text}"
        tokens += tokenizer(text, add_special_tokens=False)["input_ids"]
        last.append(len(tokens) - 1)
    step = arguments.context // 2
    found = np.zeros((len(tokens), model.config.hidden_size), dtype=np.float32)
    for start in range(0, max(1, len(tokens) - step), step):
        window = torch.tensor([tokens[start : start + arguments.context]])
        hidden = model(window, output_hidden_states=True).hidden_states
        mean = torch.stack([hidden[layer][0] for layer in arguments.layers]).mean(dim=0).float().numpy()
        # The second half of each window has at least half a window before it.
        begin = 0 if start == 0 else step
        found[start + begin : start + len(mean)] = mean[begin:]
    return found[last]


def main(argv: list[str] | None = None) -> list[str]:
    """Read every story and write its runs."""
    parser = ExperimentParser([TargetArguments], (__doc__ or "").split("\n\n")[0])
    (arguments,) = parser.parse(argv)
    if arguments.stories is None or arguments.language_model is None:
        raise ValueError("give --stories (a folder) and --language_model")
    if arguments.context < 2:
        raise ValueError(f"--context is {arguments.context}; windows need at least 2 tokens")
    runs = list_runs(arguments.stories)
    person = arguments.like or next(name for name in runs if name != arguments.participant)
    if person not in runs:
        raise ValueError(f"--like {person!r} has no runs; there are {', '.join(runs)}")
    tokenizer = AutoTokenizer.from_pretrained(arguments.language_model)
    model = AutoModelForCausalLM.from_pretrained(arguments.language_model).eval()
    for story in runs[person]:
        run = read_run(arguments.stories, person, story)
        tiers = read_words(arguments.stories, story)
        words = tiers.get("word") or tiers.get("words") or []
        if not words:
            raise ValueError(f"{story} has no tier of words; it has {', '.join(tiers)}")
        values = read_story_aloud(model, tokenizer, words, arguments)
        times = np.array([word.stop_s for word in words])
        order = np.argsort(times, kind="stable")
        # A cutoff at the rate of the volumes, as for every other feature.
        slow = lanczos_resample(values[order], times[order], run.tr_times_s, cutoff_hz=1 / run.tr_s)
        source = f"{arguments.language_model}, layers {arguments.layers}, clock of {person}; not a brain"
        responses = zscore(slow.astype(np.float64)).astype(np.float32)
        facts = {"tr_times_s": run.tr_times_s, "tr_s": run.tr_s, "space": "language model", "source": source}
        write_run(
            arguments.stories,
            StoryRun(arguments.participant, story, run.split, responses, licence="that of the model", **facts),
        )
    print(f"{arguments.participant}: {len(runs[person])} stories, {model.config.hidden_size} values per volume")
    return runs[person]


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"llm_targets: {error}")
