"""Second opinion on n-best lists from a causal language model of transformers, on CPU or GPU."""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .beam_search import Hypothesis
    from .lattice import Lattice

TEXT_FORMS = ("as_is", "sentence_case")
_FIRST_PERSON = re.compile(r"\bi\b(?!-)")


class CausalLMRescorer:
    """Log-probabilities of sentences under any causal language model.

    Args:
        model (`PreTrainedModel`): a model with a language-model head, on the device and in the dtype it shall run in.
        tokenizer (`PreTrainedTokenizerBase`): its tokenizer.
        text_form (`str`): `"as_is"` scores what the decoder wrote (lower-case words, right for models trained on such
            text); `"sentence_case"` begins with a capital letter and writes `I`, as text from the web does.
        end_punctuation (`str`): characters of which any may end the sentence, for example `".?!"`; their probabilities
            are added. Empty for models of text without punctuation.
        score_end (`bool`): count the end-of-text token too.
        batch_tokens (`int`): tokens per forward pass, padding included.

    Raises:
        ValueError: when a setting makes no sense, or the tokenizer has neither a beginning nor an end token.

    Note:
        Every sentence follows a beginning token, so that its first word counts (models without one, such as Qwen's,
        begin with their end-of-text token, as in their training). Nothing else is added by the tokenizer's templates.
        A context is run once, and its keys and values are shared by all sentences.

    Example:
        >>> from transformers import Qwen2Config, Qwen2ForCausalLM
        >>> from bit_speech.training import train_tokenizer
        >>> tokenizer = train_tokenizer(["the cat sat"] * 9, vocab_size=280)
        >>> config = Qwen2Config(
        ...     vocab_size=280, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1,
        ...     intermediate_size=8,
        ... )
        >>> CausalLMRescorer(Qwen2ForCausalLM(config), tokenizer).score(["the cat", "sat"]).shape
        (2,)
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        text_form: str = "as_is",
        end_punctuation: str = "",
        score_end: bool = True,
        batch_tokens: int = 8192,
    ) -> None:
        if text_form not in TEXT_FORMS:
            raise ValueError(f"text_form is {text_form!r}; expected one of {', '.join(TEXT_FORMS)}.")
        if batch_tokens < 1:
            raise ValueError(f"batch_tokens is {batch_tokens}; expected at least 1.")
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        if start is None:
            raise ValueError("The tokenizer has neither bos_token nor eos_token; set one, so that sentences can begin.")
        if score_end and tokenizer.eos_token_id is None:
            raise ValueError("The tokenizer has no eos_token to end a sentence with; set it, or give score_end=False.")
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.text_form = text_form
        self.end_punctuation = end_punctuation
        self.score_end = score_end
        self.batch_tokens = batch_tokens
        self._start = int(start)

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        device: str = "cpu",
        dtype: str = "auto",
        model_kwargs: dict[str, Any] | None = None,
        **settings: Any,
    ) -> CausalLMRescorer:
        """Load model and tokenizer.

        Args:
            name (`str`): folder or Hub id of a causal language model.
            device (`str`): `"cpu"`, `"cuda"`, ...
            dtype (`str`): `"float32"`, `"bfloat16"`, ... or `"auto"`, as saved.
            model_kwargs (`dict`, *optional*): further arguments of the model's `from_pretrained`, such as `revision`.
            **settings: settings of the constructor.

        Returns:
            `CausalLMRescorer`: ready to score.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        options = dict(model_kwargs or {})
        shared = {
            key: options[key] for key in ("revision", "cache_dir", "token", "trust_remote_code") if key in options
        }
        tokenizer = AutoTokenizer.from_pretrained(name, **shared)
        model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, **options)
        return cls(model.to(device), tokenizer, **settings)

    def score(self, sentences: Sequence[str], context: str = "") -> np.ndarray:
        """Natural-log probability of every sentence.

        Args:
            sentences (sequence of `str`): texts as the decoder writes them; one may be empty.
            context (`str`): text that comes before every sentence, for example what was said so far or a prompt.

        Returns:
            `np.ndarray` of shape `(len(sentences),)`: float64. The context's own probability is not counted.

        Note:
            The context and the sentence are split into tokens apart, at the same place for all sentences; the space
            between them belongs to the sentence, as tokenizers of this kind want it.
        """
        if isinstance(sentences, str):
            raise ValueError(f"sentences is one string, {sentences[:60]!r}; give a list of sentences.")
        lead = " " if context and not context.endswith("\n") else ""
        context = context.rstrip(" ")
        prefix = [self._start, *self._encode(context)] if context else [self._start]
        variants: list[str] = []
        owner: list[int] = []
        for index, sentence in enumerate(sentences):
            for text in self._written(sentence):
                variants.append(lead + text if text else text)
                owner.append(index)
        unique = list(dict.fromkeys(variants))
        rows = [self._encode(text) + ([self.tokenizer.eos_token_id] if self.score_end else []) for text in unique]
        scores = dict(zip(unique, score_continuations(self.model, prefix, rows, self.batch_tokens), strict=True))
        total = np.full(len(sentences), -np.inf)
        for index, text in zip(owner, variants, strict=True):
            total[index] = np.logaddexp(total[index], scores[text])
        return total

    def _written(self, sentence: str) -> list[str]:
        """The ways in which a sentence may be written."""
        text = " ".join(sentence.split())
        if self.text_form == "sentence_case":
            text = _FIRST_PERSON.sub("I", text)
            text = text[:1].upper() + text[1:]
        return [text + mark for mark in self.end_punctuation] if self.end_punctuation and text else [text]

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []


def score_continuations(model: Any, prefix: list[int], rows: list[list[int]], batch_tokens: int = 8192) -> np.ndarray:
    """Natural-log probability of token sequences that all follow the same prefix.

    Args:
        model (`PreTrainedModel`): a causal language model in evaluation mode.
        prefix (`list[int]`): tokens that come first, at least one; they run through the model once.
        rows (`list[list[int]]`): the continuations. An empty one scores 0.
        batch_tokens (`int`): tokens per forward pass, padding included.

    Returns:
        `np.ndarray` of shape `(len(rows),)`: float64 sums over each row's tokens.
    """
    import torch

    scores = np.zeros(len(rows))
    filled = sorted((index for index, row in enumerate(rows) if row), key=lambda index: len(rows[index]))
    if not filled:
        return scores
    with torch.inference_mode():
        device = model.device
        start = model(input_ids=torch.tensor([prefix], device=device), use_cache=True)
        first = start.logits[:, -1:].float()
        for batch in _batches(filled, rows, batch_tokens):
            longest = len(rows[batch[-1]])
            tokens = torch.zeros(len(batch), longest, dtype=torch.long)
            real = torch.zeros(len(batch), longest, dtype=torch.bool)
            for place, index in enumerate(batch):
                tokens[place, : len(rows[index])] = torch.tensor(rows[index])
                real[place, : len(rows[index])] = True
            tokens, real = tokens.to(device), real.to(device)
            logits = first.expand(len(batch), -1, -1)
            if longest > 1:
                cache = copy.deepcopy(start.past_key_values)
                cache.batch_repeat_interleave(len(batch))
                seen = torch.ones(len(batch), len(prefix), dtype=torch.long, device=device)
                # Padding is on the right, where causal attention never looks.
                mask = torch.cat([seen, real[:, :-1].long()], dim=1)
                more = model(input_ids=tokens[:, :-1], attention_mask=mask, past_key_values=cache)
                logits = torch.cat([logits, more.logits.float()], dim=1)
            found = logits.log_softmax(-1).gather(2, tokens[..., None])[..., 0].double()
            scores[batch] = found.masked_fill(~real, 0.0).sum(1).cpu().numpy()
    return scores


def _batches(order: list[int], rows: list[list[int]], batch_tokens: int) -> list[list[int]]:
    """Cut rows in order of length into batches of bounded size."""
    batches: list[list[int]] = [[]]
    for index in order:
        if batches[-1] and (len(batches[-1]) + 1) * len(rows[index]) > batch_tokens:
            batches.append([])
        batches[-1].append(index)
    return batches


@dataclasses.dataclass(frozen=True)
class RescoringWeights:
    """How the scores of a hypothesis add up after rescoring.

    Args:
        llm_weight (`float`): factor on the causal language model's log-probability.
        lm_weight (`float`): factor on the n-gram model's log-probability.
        word_score (`float`): added for every word.
        length_normalization (`float`): the language models' scores are divided by the number of words (and one for the
            end) to this power: 0 leaves them as they are, 1 gives a mean per word.

    Raises:
        ValueError: when a number is not finite, or a weight is negative.

    Example:
        >>> RescoringWeights(llm_weight=0.5, lm_weight=0.4).to_dict()
        {'llm_weight': 0.5, 'lm_weight': 0.4, 'word_score': 0.0, 'length_normalization': 0.0}
    """

    llm_weight: float = 0.5
    lm_weight: float = 0.5
    word_score: float = 0.0
    length_normalization: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not math.isfinite(value) or (value < 0 and field.name != "word_score"):
                raise ValueError(f"{field.name} is {value}; expected a finite number, and no negative weight.")

    def to_dict(self) -> dict[str, float]:
        """Give the weights as JSON can hold them.

        Returns:
            `dict[str, float]`: name -> value.
        """
        return dataclasses.asdict(self)

    def combine(self, hypotheses: Sequence[Hypothesis], llm_scores: np.ndarray) -> np.ndarray:
        """Add up the scores of one n-best list.

        Args:
            hypotheses (sequence of `Hypothesis`): n-best list of one sentence.
            llm_scores (`np.ndarray` of shape `(len(hypotheses),)`): from [`CausalLMRescorer.score`].

        Returns:
            `np.ndarray` of shape `(len(hypotheses),)`: total scores.
        """
        return self.combine_features(score_features(hypotheses, llm_scores))

    def combine_features(self, features: np.ndarray) -> np.ndarray:
        """Add up scores that were collected before.

        Args:
            features (`np.ndarray` of shape `(..., 4)`): from [`score_features`].

        Returns:
            `np.ndarray` of shape `(...)`: total scores.
        """
        acoustic, lm, llm, words = np.moveaxis(features, -1, 0)
        language = self.lm_weight * lm + self.llm_weight * llm
        if self.length_normalization:
            language = language / (words + 1) ** self.length_normalization
        return acoustic + language + self.word_score * words


def score_features(hypotheses: Sequence[Hypothesis], llm_scores: np.ndarray) -> np.ndarray:
    """Collect what rescoring adds up.

    Args:
        hypotheses (sequence of `Hypothesis`): n-best list of one sentence.
        llm_scores (`np.ndarray` of shape `(len(hypotheses),)`): from [`CausalLMRescorer.score`].

    Returns:
        `np.ndarray` of shape `(len(hypotheses), 4)`: acoustic score, n-gram score, causal model's score, words.
    """
    return np.array(
        [
            (hypothesis.acoustic_score, hypothesis.lm_score, score, len(hypothesis.text.split()))
            for hypothesis, score in zip(hypotheses, llm_scores, strict=True)
        ],
        dtype=np.float64,
    ).reshape(-1, 4)


def rescore(
    hypotheses: Sequence[Hypothesis],
    rescorer: CausalLMRescorer,
    weights: RescoringWeights | None = None,
    context: str = "",
) -> list[Hypothesis]:
    """Sort an n-best list anew with a causal language model.

    Args:
        hypotheses (sequence of `Hypothesis`): n-best list of one sentence.
        rescorer (`CausalLMRescorer`): the language model.
        weights (`RescoringWeights`, *optional*): how scores add up; its defaults when None.
        context (`str`): what was said before.

    Returns:
        `list[Hypothesis]`: the same sentences with new scores, best first. What compares equal keeps its order. Word
        confidences stay those of the search.

    Raises:
        ValueError: when the list is empty.
    """
    if not hypotheses:
        raise ValueError("There is no hypothesis to rescore; decode the sentence first.")
    llm_scores = rescorer.score([hypothesis.text for hypothesis in hypotheses], context)
    total = (weights or RescoringWeights()).combine(hypotheses, llm_scores)
    order = np.argsort(-total, kind="stable")
    return [dataclasses.replace(hypotheses[index], score=float(total[index])) for index in order]


def hypotheses_from_lattice(lattice: Lattice, number: int = 100) -> list[Hypothesis]:
    """List the best sentences of a lattice, for rescoring one that was kept or saved.

    Args:
        lattice (`Lattice`): from [`BeamSearchDecoder.lattice`] or `Lattice.load`.
        number (`int`): how many sentences at most.

    Returns:
        `list[Hypothesis]`: distinct sentences, best first, with the sums of their arcs' scores; a word's confidence is
        the posterior of its arc.

    Raises:
        ValueError: when `number` is less than 1 or the lattice has no way to its end.

    Note:
        A lattice joins histories that the language model does not tell apart, so that sums differ a little from the
        decoder's own scores where it sees further back.
    """
    from .beam_search import Hypothesis, Word

    if number < 1:
        raise ValueError(f"number is {number}; expected at least 1.")
    # At every node the best ways to it, one for each sequence of words.
    ways: list[dict[tuple[str, ...], tuple[float, float, float, tuple[Word, ...]]]] = [
        {} for _ in range(lattice.num_nodes)
    ]
    ways[0][()] = (0.0, 0.0, 0.0, ())
    for arc in lattice.arcs:
        for said, (score, acoustic, lm, words) in _best_ways(ways[arc.source], number):
            texts = (*said, arc.word) if arc.word else said
            total = score + arc.score
            known = ways[arc.target].get(texts)
            if known is None or total > known[0]:
                word = (Word(arc.word, arc.start_frame, arc.end_frame, arc.posterior),) if arc.word else ()
                ways[arc.target][texts] = (total, acoustic + arc.acoustic_score, lm + arc.lm_score, (*words, *word))
    found = _best_ways(ways[-1], number) if lattice.num_nodes > 1 else []
    if not found:
        raise ValueError(
            f"The lattice of {lattice.num_nodes} nodes and {len(lattice.arcs)} arcs has no way to its end."
        )
    return [
        Hypothesis(" ".join(texts), score, acoustic, lm, list(words)) for texts, (score, acoustic, lm, words) in found
    ]


def _best_ways(ways: dict[Any, tuple], number: int) -> list[tuple[Any, tuple]]:
    return sorted(ways.items(), key=lambda item: -item[1][0])[:number]
