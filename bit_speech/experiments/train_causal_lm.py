"""Train a small causal language model from text: byte-pair tokenizer, Qwen2 architecture, an ordinary model folder.

    bit-speech train causal-lm --config examples/configs/causal_lm_small.yaml --text corpus.txt.xz

The folder `<output_dir>/model` loads with `AutoModelForCausalLM` and `AutoTokenizer`: for rescoring, as the start of a
merger, or wherever a pretrained language model is asked for and none can be downloaded. The same command continues a
run that was stopped.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import Qwen2Config, Qwen2ForCausalLM, Trainer, TrainingArguments, set_seed
from transformers.hf_argparser import HfArg

from bit_speech.arguments import ExperimentParser
from bit_speech.decoding import CausalLMRescorer
from bit_speech.files import write_json
from bit_speech.training import (
    COMMON_SETTINGS,
    NUM_PARTS,
    PackedSentences,
    SealCheckpoints,
    newest_complete_checkpoint,
    read_sentences,
    select_sentences,
    train_tokenizer,
)


@dataclass
class LanguageModelArguments:
    """Which text, and how large a model."""

    _show_all_settings = True

    text: list[str] = HfArg(default_factory=list, help="Files, one sentence per line (.txt, .gz, .xz).")
    max_text_sentences: int | None = HfArg(default=None, help="Draw at most so many sentences from the files.")
    sentence_lists: list[str] = HfArg(default_factory=list, help="Shipped lists: tatoeba, t12, t15, read_speech.")
    held_out_parts: list[int] = HfArg(
        default_factory=lambda: [0], help=f"Of {NUM_PARTS} parts by the sentence's hash, those never trained on."
    )
    exclude: list[str] = HfArg(default_factory=list, help="Files of further sentences never to be trained on.")
    exclude_participants: list[str] = HfArg(
        default_factory=list, help="Simulated participants, preset:seed, whose held-out sentences are excluded."
    )
    normalization: str = HfArg(default="brain_to_text_25", help="brain_to_text_25 (lower-case words) or none.")
    num_scored_sentences: int = HfArg(default=2000, help="Held-out sentences that the perplexity is measured on.")
    vocab_size: int = HfArg(default=4096, help="Tokens of the byte-pair tokenizer.")
    block_size: int = HfArg(default=128, help="Tokens per training example.")
    hidden_size: int = HfArg(default=256, help="Width of the model.")
    num_hidden_layers: int = HfArg(default=4, help="Layers.")
    num_attention_heads: int = HfArg(default=4, help="Attention heads.")
    intermediate_size: int = HfArg(default=704, help="Width of the feed-forward layers.")

    def __post_init__(self) -> None:
        """Check what can be checked before any text is read."""
        if not self.text and not self.sentence_lists:
            raise ValueError("there is no text: give --text FILES, --sentence_lists NAMES, or both")
        if not self.held_out_parts or not set(self.held_out_parts) < set(range(NUM_PARTS)):
            raise ValueError(f"held_out_parts is {self.held_out_parts}; name some of 0 to {NUM_PARTS - 1}, and not all")


def read_corpus(arguments: LanguageModelArguments, seed: int) -> tuple[list[str], list[str]]:
    """Training sentences, and a sample of held-out ones to score.

    Args:
        arguments ([`LanguageModelArguments`]): which text.
        seed (`int`): draws the sentences.

    Returns:
        `tuple[list[str], list[str]]`: normalised sentences.

    Raises:
        ValueError: when nothing is left to train on or to score.
    """
    from bit_speech.simulation import SimulatedParticipant, load_sentences

    exclude = [sentence for path in arguments.exclude for sentence in read_sentences(path)]
    for name in arguments.exclude_participants:
        preset, _, number = name.partition(":")
        participant = SimulatedParticipant(preset, seed=int(number or 0))
        exclude += participant.sentences("val") + participant.sentences("test")
    rng = np.random.default_rng(seed)
    files = [sentence for path in arguments.text for sentence in read_sentences(path)]
    if arguments.max_text_sentences is not None and arguments.max_text_sentences < len(files):
        chosen = rng.choice(len(files), arguments.max_text_sentences, replace=False)
        files = [files[index] for index in np.sort(chosen)]
    sentences = files + [sentence for name in arguments.sentence_lists for sentence in load_sentences(name)]
    held_out = set(arguments.held_out_parts)
    train = select_sentences(
        sentences, parts=set(range(NUM_PARTS)) - held_out, exclude=exclude, normalization=arguments.normalization
    )
    scored = select_sentences(sentences, parts=held_out, normalization=arguments.normalization)
    scored = list(dict.fromkeys(scored))
    rng.shuffle(scored)
    if not train or not scored:
        raise ValueError(f"{len(train)} sentences to train on and {len(scored)} to score; give more text")
    return train, scored[: arguments.num_scored_sentences]


def build(arguments: LanguageModelArguments, vocab_size: int) -> Qwen2ForCausalLM:
    """The untrained model.

    Args:
        arguments ([`LanguageModelArguments`]): its sizes.
        vocab_size (`int`): tokens.

    Returns:
        `Qwen2ForCausalLM`: with random weights.
    """
    config = Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=arguments.hidden_size,
        num_hidden_layers=arguments.num_hidden_layers,
        num_attention_heads=arguments.num_attention_heads,
        num_key_value_heads=math.gcd(arguments.num_attention_heads, max(1, arguments.num_attention_heads // 2)),
        intermediate_size=arguments.intermediate_size,
        # Room for prompts that are longer than the blocks of this training.
        max_position_embeddings=max(2048, arguments.block_size),
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return Qwen2ForCausalLM(config)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the experiment.

    Args:
        argv (`list[str]`, *optional*): the settings as a command line without the program's name.

    Returns:
        `dict`: perplexity and sizes, as in `perplexity.json`.

    Raises:
        ValueError: for settings or data that cannot be used; the message holds the remedy.
        FileNotFoundError: when a folder or file is not there.
    """
    parser = ExperimentParser(
        [LanguageModelArguments, TrainingArguments],
        description=(__doc__ or "").split("\n\n")[0],
        example="bit-speech train causal-lm --config examples/configs/causal_lm_small.yaml",
        highlights=COMMON_SETTINGS,
    )
    parser.prog = "bit-speech train causal-lm"
    arguments, training = parser.parse(argv)
    output = Path(training.output_dir)
    parser.save_beside(output, write=False)
    finished = output / "perplexity.json"
    if finished.is_file():
        print(f"{output} is finished")
        return json.loads(finished.read_text(encoding="utf-8"))
    set_seed(training.seed)
    train, scored = read_corpus(arguments, training.seed)
    tokenizer = train_tokenizer(train, arguments.vocab_size)
    model = build(arguments, len(tokenizer))
    trainer = Trainer(
        model,
        training,
        train_dataset=PackedSentences(train, tokenizer, arguments.block_size, seed=training.seed),
        eval_dataset=PackedSentences(scored, tokenizer, arguments.block_size),
        processing_class=tokenizer,
        callbacks=[SealCheckpoints()],
    )
    parser.save_beside(output)
    print(f"{len(train):,} sentences, {model.num_parameters() / 1e6:.2f} M parameters", flush=True)
    checkpoint = newest_complete_checkpoint(output)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trainer.save_model(str(output / "model"))
    scores = CausalLMRescorer(model, tokenizer).score(scored)
    words = sum(len(sentence.split()) + 1 for sentence in scored)
    result = {
        "held_out_sentences": len(scored),
        "perplexity_per_word_and_end": math.exp(-float(scores.sum()) / words),
        "loss_per_token": trainer.evaluate()["eval_loss"],
        "training_sentences": len(train),
        "training_tokens_seen": trainer.state.global_step * training.train_batch_size * arguments.block_size,
        "parameters": model.num_parameters(),
    }
    write_json(finished, result)
    print(json.dumps(result, indent=2))
    return result
