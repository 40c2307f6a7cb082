"""A small language model learns to write down what it hears, from text alone.

    python -m benchmarks.spelling_lm --causal_lm FOLDER --output_dir FOLDER    # 27,000 steps: 90 minutes on one core

The published decoder starts from an audio language model, which has heard speech; a small model of text has not, and a
few hundred sentences of a participant cannot teach it how English is spelt. Here it reads, in place of neural tokens,
what an encoder's CTC head would say of a sentence's pronunciation: peaks between blanks, with confusions, at a random
pace. No neural recording is used. A table of embeddings (one row for each class and each frame of a stacked token)
turns such posteriors into tokens; `benchmarks/end_to_end.py` starts the projector where it writes the same tokens.
Thomas et al. 2022 (arXiv 2202.13155) train a speech recognizer on text in this way, without confusions.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from bit_speech.files import write_json
from bit_speech.simulation import load_sentences
from bit_speech.simulation.articulation import NUM_PHONES, articulatory_targets
from bit_speech.simulation.text import pronounce
from bit_speech.training import NUM_PARTS, select_sentences
from configuration_bit.phoneme_inventory_bit import MODEL_ORDER

LISTS = ("tatoeba", "t12", "t15", "read_speech")
NUM_CLASSES = len(MODEL_ORDER)
SIL = MODEL_ORDER.index("SIL")
# In these layers the first half of the heads is shown where each word was heard, which it would take very long to find.
GUIDED_LAYERS, GUIDE_WEIGHT = (1, 2), 0.3
LONGEST = 15  # words of a sentence that is read; longer ones are cut apart anyway
# Steps and highest rate. The second round goes on where the first ended, with whole sentences only.
ROUNDS = ((12_000, 1.5e-3), (15_000, 1.2e-3))
TABLE = "phoneme_table.safetensors"
LEADING = ":"  # what stands between the neural tokens and the sentence


@cache
def confusable() -> np.ndarray:
    """How likely each class (rows) is taken for each other (columns), by articulation; blank and SIL for themselves."""
    targets = articulatory_targets()[:NUM_PHONES]
    distance = ((targets[:, None] - targets[None]) ** 2).sum(-1)
    shares = np.exp(-distance / 0.8)
    np.fill_diagonal(shares, 0.0)
    matrix = np.eye(NUM_CLASSES)
    matrix[1 : 1 + NUM_PHONES, 1 : 1 + NUM_PHONES] = shares / shares.sum(1, keepdims=True)
    return matrix.cumsum(1)


def pseudo_posteriors(phonemes: list[int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """What a CTC head may say of a sentence.

    Args:
        phonemes: class indices of the sentence, SIL after every word.
        rng: for pace, confusions, deletions and insertions (together near 8 % of the phonemes), and for how long a
            phoneme is held: some heads give a single peak between blanks, others hold a phoneme until the next.

    Returns:
        float32 of shape (frames, 41): probabilities; at a tenth of a second a frame the pace is that of slow speech.
        And the word that each frame belongs to, -1 before the first.
    """
    count = len(phonemes)
    pace, held = rng.uniform(1.4, 4.5), rng.uniform(0, 1)
    spans = np.maximum(1, np.rint(rng.gamma(2.5, pace / 2.5, count))).astype(int)
    again = np.equal(phonemes[:-1], phonemes[1:])
    spans[:-1][again] = np.maximum(spans[:-1][again], 2)  # a blank must fit between two equal phonemes
    onsets = rng.integers(1, 12) + np.append(0, spans[:-1].cumsum())
    runs = 1 + np.rint(np.clip(rng.normal(held, 0.2, count), 0, 1) * (spans - 1)).astype(int)
    runs[:-1][again] = np.minimum(runs[:-1][again], spans[:-1][again] - 1)
    frames = np.zeros((onsets[-1] + spans[-1] + rng.integers(1, 14), NUM_CLASSES), np.float32)
    rows = confusable()
    unsure = rng.random(count) < 0.2
    sure = np.where(unsure, rng.uniform(0.15, 0.95, count), rng.uniform(0.9, 1.0, count))
    scale = np.where(rng.random(count) < 0.02, rng.uniform(0, 0.3, count), 1.0)
    draws = rng.random(count)
    for index, (label, onset) in enumerate(zip(phonemes, onsets)):
        run = slice(onset, onset + runs[index])
        frames[run, label] = sure[index] * scale[index]
        if unsure[index]:
            other = min(int(np.searchsorted(rows[label], draws[index])), NUM_CLASSES - 1)
            frames[run, other] += 0.9 * (1 - sure[index]) * scale[index]
    for _ in range(rng.binomial(count, 0.02)):
        place = rng.integers(1, len(frames))
        if not frames[place].any():
            frames[place, rng.integers(1, 1 + NUM_PHONES)] = rng.uniform(0.3, 0.9)
    frames[:, 0] = 1 - frames.sum(1)
    word = np.append(0, np.equal(phonemes[:-1], SIL).cumsum())
    spoken = np.searchsorted(onsets, np.arange(len(frames)), side="right") - 1
    return frames, np.where(spoken < 0, -1, word[spoken])


def stack(posteriors: np.ndarray, stacking: int) -> np.ndarray:
    """Put neighbouring frames side by side, (frames, classes) to (tokens, stacking * classes); blanks fill the end."""
    missing = -len(posteriors) % stacking
    blank = np.eye(1, posteriors.shape[1], dtype=posteriors.dtype)
    return np.concatenate([posteriors, blank.repeat(missing, 0)]).reshape(-1, stacking * posteriors.shape[1])


def spelling_sentences(exclude: list[str], held_out_parts: tuple[int, ...], max_words: int = LONGEST) -> list[str]:
    """Short shipped sentences that can be pronounced, without the excluded ones and the held-out parts."""
    everything = [text for name in LISTS for text in load_sentences(name)]
    parts = set(range(NUM_PARTS)) - set(held_out_parts)
    found = dict.fromkeys(select_sentences(everything, parts=parts, exclude=exclude))
    return [text for text in found if len(text.split()) <= max_words and pronounce(text)]


def batches(
    sentences: list[str], tokenizer: Any, stacking: int, rng: np.random.Generator, max_words: int, num_words: int
) -> Iterator[tuple[torch.Tensor, ...]]:
    """Batches of similar length, one pass over the sentences; runs of at most `max_words` words are cut from them.

    A batch has about `num_words` words. Most tokens that are blank all through are left out, to save time; positions
    tell where they were.
    """
    end = tokenizer.eos_token_id
    leading = tokenizer(LEADING, add_special_tokens=False)["input_ids"]
    size = max(8, num_words // max_words)
    order = rng.permutation(len(sentences))
    for pool in np.array_split(order, max(1, len(order) // (size * 10))):
        ready = []
        for index in pool:
            words = sentences[index].split()
            first = int(rng.integers(0, max(1, len(words) - max_words + 1)))
            said = " ".join(words[first : first + max_words])
            labels = [MODEL_ORDER.index(name) for name in pronounce(said) or []]
            if not labels:
                continue
            frames, frame_words = pseudo_posteriors(labels, rng)
            tokens = stack(frames, stacking)
            blank = tokens[:, ::NUM_CLASSES].min(1) > 0.97
            kept = np.flatnonzero(~blank | (rng.random(len(tokens)) < 0.2))
            text = tokenizer(said, add_special_tokens=False)["input_ids"]
            # An empty row makes room for the token that begins every text.
            heard = np.concatenate([np.zeros_like(tokens[:1]), tokens[kept]])
            starts = [piece.startswith("Ġ") for piece in tokenizer.convert_ids_to_tokens(text)]
            text_words = np.concatenate([np.full(len(leading), -1), np.cumsum(starts), [-1]])
            heard_words = np.append(-1, frame_words[::stacking][kept])
            ids = [*leading, *text, end]
            ready.append((heard, np.append(0, 1 + kept), 1 + len(tokens), ids, heard_words, text_words))
        if len(ready) < size:
            continue
        ready.sort(key=lambda one: len(one[0]) + len(one[3]))
        for start in rng.permutation(range(0, len(ready) - size + 1, size)):
            yield collate(ready[start : start + size], len(leading), tokenizer)


def curriculum(step: int, num_steps: int, max_words: int) -> int:
    """Words at most in a step: single words first, as many as there may be for most of the time."""
    for share, words in ((0.08, 1), (0.16, 2), (0.3, 4)):
        if step < share * num_steps:
            return min(words, max_words)
    return max_words


def endless(
    sentences: list[str], tokenizer: Any, stacking: int, rng: np.random.Generator, lengths: list[int], num_words: int
) -> Iterator[tuple[torch.Tensor, ...]]:
    """One batch for every entry of `lengths`, which says how many words a sentence may have."""
    counts = Counter(word for sentence in sentences for word in sentence.split())
    words = sorted(word for word in counts if pronounce(word))
    # Single words are drawn a little more evenly than they occur, so that rare ones are heard too.
    shares = np.array([counts[word] for word in words]) ** 0.75
    source, current = iter(()), 0
    for max_words in lengths:
        if max_words != current:
            source, current = iter(()), max_words
        batch = next(source, None)
        if batch is None:
            drawn = sentences if max_words > 1 else list(rng.choice(words, 50 * num_words, p=shares / shares.sum()))
            source = batches(drawn, tokenizer, stacking, rng, max_words, num_words)
            batch = next(source)
        yield batch


class Hearing(torch.nn.Module):
    """Table of embeddings of stacked posteriors: one row a class, turned for every further frame of a token."""

    def __init__(self, stacking: int, size: int, scale: float) -> None:
        super().__init__()
        self.classes = torch.nn.Parameter(scale * torch.randn(NUM_CLASSES, size))
        turns = torch.eye(size).repeat(stacking - 1, 1, 1)
        self.turns = torch.nn.Parameter(turns + torch.randn_like(turns) / (2 * size**0.5))

    def start_at(self, table: torch.Tensor) -> None:
        """Take the rows of a table; the turns that give them are not the only ones, but the smallest."""
        classes, *others = table.split(NUM_CLASSES)
        with torch.no_grad():
            self.classes.copy_(classes)
            self.turns.copy_(torch.stack([torch.linalg.pinv(classes) @ rows for rows in others]))

    def forward(self) -> torch.Tensor:
        """The table, `(stacking * 41, size)`."""
        return torch.cat([self.classes, *(self.classes @ turn for turn in self.turns)])


def collate(members: list[Any], skipped: int, tokenizer: Any) -> tuple[torch.Tensor, ...]:
    """Left-pad the heard tokens and right-pad the text, so that the text of all members begins in one column."""
    heard, said = max(len(one[0]) for one in members), max(len(one[3]) for one in members)
    width = members[0][0].shape[1]
    posteriors = torch.zeros(len(members), heard, width)
    positions = torch.zeros(len(members), heard + said, dtype=torch.long)
    mask = torch.zeros(len(members), heard + said, dtype=torch.long)
    text = torch.full((len(members), heard + said), tokenizer.pad_token_id)
    guide = torch.zeros(len(members), said, heard, dtype=torch.bool)
    for row, (tokens, kept, length, ids, heard_words, text_words) in enumerate(members):
        posteriors[row, heard - len(tokens) :] = torch.from_numpy(tokens)
        positions[row, heard - len(tokens) : heard] = torch.from_numpy(kept)
        positions[row, heard:] = length + torch.arange(said)
        mask[row, heard - len(tokens) : heard + len(ids)] = 1
        same = (text_words[:, None] == heard_words[None]) & (text_words[:, None] >= 0)
        guide[row, : len(ids), heard - len(tokens) :] = torch.from_numpy(same)
        text[row, heard - len(tokens)] = tokenizer.bos_token_id
        text[row, heard : heard + len(ids)] = torch.tensor(ids)
    counts = mask[:, heard:].clone()
    counts[:, :skipped] = 0
    return posteriors, positions, mask, text, counts, guide


def losses_of(model: Any, table: torch.Tensor, batch: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy per token of the text, and minus the log of the attention that falls on the word being written."""
    posteriors, positions, mask, text, counts, guide = batch
    heard = posteriors.shape[1]
    known = model.get_input_embeddings()(text)
    from_text = (posteriors.sum(-1, keepdim=True) == 0).to(known.dtype)
    embeds = torch.cat([posteriors @ table + from_text * known[:, :heard], known[:, heard:]], dim=1)
    told = model.model(inputs_embeds=embeds, attention_mask=mask, position_ids=positions, output_attentions=True)
    logits = model.lm_head(told.last_hidden_state[:, heard:-1])
    targets = text[:, heard + 1 :].masked_fill(counts[:, 1:] == 0, -100)
    loss = cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=-100)
    guide = guide[:, 1:]
    shown = guide.any(-1)
    missed = []
    for layer in GUIDED_LAYERS:
        heads = told.attentions[layer]
        looked = heads[:, : max(1, heads.shape[1] // 2), heard:-1, :heard].float() * guide[:, None]
        missed.append(-(looked.sum(-1) + 1e-4).log().mean(1)[shown].mean())
    return loss, torch.stack(missed).mean()


def train_spelling_lm(
    causal_lm: str | Path,
    output_dir: Path,
    exclude: list[str],
    *,
    rounds: Sequence[tuple[int, float]] = ROUNDS,
    stacking: int = 2,
    words_per_batch: int = 160,
    max_words: int = 6,
    held_out_parts: tuple[int, ...] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Go on training a causal language model on pseudo posteriors; writes model, tokenizer, table and record.

    A round is a number of steps and its highest rate; a run that was stopped goes on with the round it was in.
    """
    path = output_dir / "spelling.json"
    record = json.loads(path.read_text()) if path.exists() else {"rounds": []}
    if len(record["rounds"]) >= len(rounds):
        return dict(record)
    sentences = spelling_sentences(exclude, held_out_parts)
    checked = [text for text in sentences if len(text.split()) <= max_words]
    checked = checked[:: max(1, len(checked) // 200)][:200]
    known = set(checked)
    sentences = [text for text in sentences if text not in known]
    settings = {
        "sentences": len(sentences), "stacking": stacking, "words_per_batch": words_per_batch, "max_words": max_words,
        "seed": seed,
    }  # fmt: skip
    for number, (num_steps, rate) in enumerate(rounds):
        if number < len(record["rounds"]):
            continue
        fresh = output_dir.with_name(f"{output_dir.name}.round{number}")
        lengths = [curriculum(step, num_steps, max_words) if number == 0 else max_words for step in range(num_steps)]
        found = _train_round(
            causal_lm if number == 0 else output_dir, fresh, sentences, checked, lengths, rate, stacking,
            words_per_batch, seed + number,
        )  # fmt: skip
        record = {**settings, "rounds": [*record["rounds"], {"steps": num_steps, "learning_rate": rate, **found}]}
        write_json(fresh / path.name, record)
        if output_dir.exists():
            shutil.rmtree(output_dir)
        fresh.rename(output_dir)
    return record


def _train_round(
    source: str | Path,
    output_dir: Path,
    sentences: list[str],
    checked: list[str],
    lengths: list[int],
    rate: float,
    stacking: int,
    words_per_batch: int,
    seed: int,
) -> dict[str, Any]:
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForCausalLM.from_pretrained(source, dtype="float32", attn_implementation="eager").train()
    hearing = Hearing(stacking, model.config.hidden_size, model.get_input_embeddings().weight.std().item())
    table = Path(source) / TABLE
    if table.exists():
        hearing.start_at(load_file(table)["table"])
    weights = [*model.parameters(), *hearing.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=rate, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, len(lengths), pct_start=0.05)
    half = torch.cpu._is_avx512_bf16_supported()
    start, losses, curve = time.process_time(), [], []
    batches = endless(sentences, tokenizer, stacking, np.random.default_rng(seed), lengths, words_per_batch)
    for step, batch in enumerate(batches, start=1):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss, missed = losses_of(model, hearing(), batch)
        (loss + GUIDE_WEIGHT * missed).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append((loss.item(), missed.item()))
        if step % max(1, len(lengths) // 10) == 0 or step == len(lengths):
            now = held_out_losses(model, hearing(), checked, tokenizer, stacking)
            curve.append([step, *np.mean(losses, axis=0).tolist(), *now])
            losses = []
            print(lengths[step - 1], *curve[-1], f"{time.process_time() - start:.0f} CPU s", flush=True)
    model.save_pretrained(output_dir)
    tokenizer.save_pretrained(output_dir)
    save_file({"table": hearing().detach().contiguous()}, output_dir / TABLE)
    return {"curve": curve, "cpu_seconds": time.process_time() - start}


def held_out_losses(
    model: Any, table: torch.Tensor, sentences: list[str], tokenizer: Any, stacking: int
) -> list[float]:
    """Both losses on sentences that are not trained on, from a fixed draw of pseudo posteriors."""
    rng = np.random.default_rng(1)
    model.eval()
    with torch.no_grad():
        batch = next(batches(sentences, tokenizer, stacking, rng, 100, 100 * len(sentences)))
        losses = losses_of(model, table, batch)
    model.train()
    return [loss.item() for loss in losses]


def main() -> None:
    """Train a spelling language model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--causal_lm", required=True)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--stacking", type=int, default=2)
    arguments = parser.parse_args()
    from benchmarks.end_to_end_people import held_out_sentences

    torch.set_num_threads(1)
    record = train_spelling_lm(
        arguments.causal_lm, arguments.output_dir, held_out_sentences(), stacking=arguments.stacking
    )
    print(json.dumps(record))


if __name__ == "__main__":
    main()
