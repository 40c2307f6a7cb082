"""The merger: a language model that reads what several decoders wrote and writes one sentence."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bit_speech.files import write_json

from .fusion import ConfusionNetwork, confusion_network
from .rescoring import score_continuations

INSTRUCTION = (
    "Several decoders have read the same sentence from recordings of brain activity, each with errors of its own. "
    "Below are their transcripts, how many decoders agree on each (when more than one), and the result of a vote on "
    "every word. Write the sentence that was most likely meant: lower case, no punctuation but apostrophes, and "
    "nothing else."
)
CONFIG_NAME = "merger_config.json"
_FORMAT = "bit-speech merger"


def merger_prompt(candidates: Sequence[str], instruction: str = INSTRUCTION, max_candidates: int = 10) -> str:
    r"""Write the question to the merger.

    Args:
        candidates (sequence of `str`): what each decoder wrote, in a fixed order of decoders.
        instruction (`str`): what to do; empty for a small model that was trained on nothing else.
        max_candidates (`int`): distinct transcripts shown, those with most votes first; all take part in the vote.

    Returns:
        `str`: ends in a line break, so that the answer begins with a token of its own.

    Raises:
        ValueError: when there is no candidate.

    Example:
        >>> print(merger_prompt(["i need it", "i kneed it", "i need it"], instruction=""), end="")
        candidates:
        i need it (2)
        i kneed it
        vote:
        i need it
        sentence:
    """
    texts = [" ".join(candidate.split()) for candidate in candidates]
    votes: dict[str, int] = {}
    for text in texts:
        votes[text] = votes.get(text, 0) + 1
    ranked = sorted(votes, key=lambda text: -votes[text])[:max_candidates]
    lines = [instruction, ""] if instruction else []
    lines += ["candidates:", *(f"{text} ({votes[text]})" if votes[text] > 1 else text for text in ranked)]
    lines += ["vote:", confusion_network(texts).best(), "sentence:"]
    return "\n".join(lines) + "\n"


class LLMMerger:
    """Makes one sentence of several transcripts with a causal language model.

    Args:
        model (`PreTrainedModel`): the language model, trained by `bit_speech.training.train_merger` or a large one as
            it is.
        tokenizer (`PreTrainedTokenizerBase`): its tokenizer. With a chat template the prompt is a user's message.
        instruction (`str`): see [`merger_prompt`].
        max_candidates (`int`): see [`merger_prompt`].
        batch_size (`int`): prompts that are answered at a time.
        vote_weight (`float`): for [`LLMMerger.choose`]: factor on the votes' log-probabilities.

    Note:
        The merger sees transcripts only. It writes freely: nothing holds the answer to words that a decoder proposed,
        unless [`LLMMerger.choose`] is called, which picks among the sentences of the confusion network.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        instruction: str = INSTRUCTION,
        max_candidates: int = 10,
        batch_size: int = 16,
        vote_weight: float = 1.0,
    ) -> None:
        if max_candidates < 1 or batch_size < 1:
            raise ValueError(f"max_candidates is {max_candidates}, batch_size {batch_size}; expected at least 1.")
        if not vote_weight >= 0:
            raise ValueError(f"vote_weight is {vote_weight}; expected zero or more.")
        if tokenizer.eos_token_id is None:
            raise ValueError("The tokenizer has no eos_token, so that no answer could ever end; set it.")
        self.model = model
        self.tokenizer = tokenizer
        self.instruction = instruction
        self.max_candidates = max_candidates
        self.batch_size = batch_size
        self.vote_weight = vote_weight

    @classmethod
    def from_pretrained(cls, name: str, *, device: str = "cpu", dtype: str = "auto", **changes: Any) -> LLMMerger:
        """Load a merger, or any causal language model to be used as one.

        Args:
            name (`str`): folder or Hub id.
            device (`str`): `"cpu"`, `"cuda"`, ...
            dtype (`str`): `"float32"`, `"bfloat16"`, ... or `"auto"`, as saved.
            **changes: settings of the constructor that beat the saved ones.

        Returns:
            `LLMMerger`: the merger.

        Raises:
            ValueError: when the folder's merger settings are of another kind.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import cached_file

        found = cached_file(name, CONFIG_NAME, _raise_exceptions_for_missing_entries=False)
        settings: dict[str, Any] = {}
        if found is not None:
            settings = json.loads(Path(found).read_text(encoding="utf-8"))
            kind = settings.pop("format", None)
            if kind != _FORMAT:
                raise ValueError(f"{found} has the format {kind!r}; expected {_FORMAT!r}.")
        model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype).to(device)
        return cls(model, AutoTokenizer.from_pretrained(name), **(settings | changes))

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Save model, tokenizer and settings.

        Args:
            folder (`str`): made when it is missing.

        Returns:
            `Path`: the folder; the model in it is an ordinary one, adapters merged into its weights.
        """
        folder = Path(folder)
        model = self.model.merge_and_unload() if hasattr(self.model, "merge_and_unload") else self.model
        model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        names = ("instruction", "max_candidates", "batch_size", "vote_weight")
        write_json(folder / CONFIG_NAME, {"format": _FORMAT, **{name: getattr(self, name) for name in names}})
        return folder

    def prompt(self, candidates: Sequence[str]) -> str | list[dict[str, str]]:
        """The prompt in the form that TRL takes.

        Args:
            candidates (sequence of `str`): what each decoder wrote.

        Returns:
            `str` or `list[dict]`: plain text, or one message of a user when the tokenizer has a chat template.
        """
        text = merger_prompt(candidates, self.instruction, self.max_candidates)
        return [{"role": "user", "content": text}] if self.tokenizer.chat_template else text

    def merge(self, candidate_lists: Sequence[Sequence[str]]) -> list[str]:
        """Write one sentence for every list of candidates, free-running and greedily.

        Args:
            candidate_lists (sequence of sequences of `str`): for every sentence what each decoder wrote.

        Returns:
            `list[str]`: the sentences. Where an answer does not end within twice the longest candidate's length, the
            vote.
        """
        import torch

        answers = [confusion_network(candidates).best() for candidates in candidate_lists]
        prefixes = [self._prefix(candidates) for candidates in candidate_lists]
        order = sorted(range(len(prefixes)), key=lambda index: len(prefixes[index]))
        end, pad = self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        pad = end if pad is None else pad
        was_training = self.model.training
        self.model.eval()
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            longest = max(len(prefixes[index]) for index in batch)
            ids = torch.full((len(batch), longest), pad, dtype=torch.long)
            mask = torch.zeros_like(ids)
            for row, index in enumerate(batch):
                ids[row, longest - len(prefixes[index]) :] = torch.tensor(prefixes[index])
                mask[row, longest - len(prefixes[index]) :] = 1
            rooms = [2 * max(len(self._tokens(text)) for text in candidate_lists[index]) + 8 for index in batch]
            with torch.inference_mode():
                written = self.model.generate(
                    input_ids=ids.to(self.model.device),
                    attention_mask=mask.to(self.model.device),
                    max_new_tokens=max(rooms),
                    do_sample=False,
                    num_beams=1,
                    pad_token_id=pad,
                    # An instruction-tuned model's own settings (temperature, top-p) have no say in greedy writing.
                    temperature=None,
                    top_p=None,
                    top_k=None,
                )[:, longest:]
            ends = self._ends()
            for index, row, room in zip(batch, written.tolist(), rooms, strict=True):
                # Its own room, so that an answer does not depend on its neighbours.
                if ends & set(row[:room]):
                    text = self.tokenizer.decode(row, skip_special_tokens=True).strip()
                    answers[index] = " ".join(text.split("\n")[0].split())
        self.model.train(was_training)
        return answers

    def choose(
        self,
        candidate_lists: Sequence[Sequence[str]],
        networks: Sequence[ConfusionNetwork] | None = None,
        num_sentences: int = 30,
    ) -> list[str]:
        """Pick the sentence of the confusion network that model and votes together find most likely.

        Args:
            candidate_lists (sequence of sequences of `str`): for every sentence what each decoder wrote.
            networks (sequence of `ConfusionNetwork`, *optional*): networks with more in them than the candidates, such
                as n-best lists with their probabilities; made of the candidates when None.
            num_sentences (`int`): sentences of a network that are weighed up, see [`ConfusionNetwork.sentences`].

        Returns:
            `list[str]`: the sentences.
        """
        return [
            texts[int(np.argmax(model_scores + self.vote_weight * votes))]
            for texts, model_scores, votes in self.weigh_up(candidate_lists, networks, num_sentences)
        ]

    def weigh_up(
        self,
        candidate_lists: Sequence[Sequence[str]],
        networks: Sequence[ConfusionNetwork] | None = None,
        num_sentences: int = 30,
    ) -> list[tuple[list[str], np.ndarray, np.ndarray]]:
        """What [`LLMMerger.choose`] adds up, for tuning `vote_weight`.

        Args:
            candidate_lists (sequence of sequences of `str`): see [`LLMMerger.choose`].
            networks (sequence of `ConfusionNetwork`, *optional*): see [`LLMMerger.choose`].
            num_sentences (`int`): see [`LLMMerger.choose`].

        Returns:
            `list[tuple[list[str], np.ndarray, np.ndarray]]`: for every sentence the texts, best vote first, the model's
            natural-log probability of each after the prompt, and the votes'.

        Raises:
            ValueError: when the numbers of lists and networks differ.
        """
        if networks is None:
            networks = [confusion_network(candidates) for candidates in candidate_lists]
        if len(networks) != len(candidate_lists):
            raise ValueError(f"{len(candidate_lists)} lists of candidates but {len(networks)} confusion networks.")
        result = []
        was_training = self.model.training
        self.model.eval()
        for candidates, network in zip(candidate_lists, networks, strict=True):
            voted = network.sentences(num_sentences)
            texts = [text for text, _ in voted]
            rows = [[*self._tokens(text), self.tokenizer.eos_token_id] for text in texts]
            scores = score_continuations(self.model, self._prefix(candidates), rows)
            result.append((texts, scores, np.array([score for _, score in voted])))
        self.model.train(was_training)
        return result

    def _prefix(self, candidates: Sequence[str]) -> list[int]:
        prompt = self.prompt(candidates)
        if isinstance(prompt, str):
            return list(self.tokenizer(prompt)["input_ids"])
        chat = self.tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=True)
        return list(chat["input_ids"])

    def _tokens(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _ends(self) -> set[int]:
        """Tokens that end an answer; chat models have an end of turn beside the end of text."""
        ends = self.model.generation_config.eos_token_id
        more = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
        return {self.tokenizer.eos_token_id, *more}
