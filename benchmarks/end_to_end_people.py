"""Simulated participants of the end-to-end benchmark: trials, phoneme encoders, and what the cascade writes.

Everything that does not depend on the end-to-end network is made here, once, and kept below the working folder.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import encoders, pretraining, pretraining_cohort
from benchmarks.wav2vec2_brain import trials_of
from bit_speech.files import write_json

WORK = Path("runs/benchmarks/end_to_end")
SEEDS = (0, 1, 2)
ATTEMPTED_PRESET = "t15-like"
IMAGINED = {"imagined_scratch": "scratch", "imagined_pretrained": "all"}
NUM_HYPOTHESES = 20


def held_out_sentences() -> list[str]:
    """Every sentence that is scored or tuned on, of any participant and seed: no language model may have seen them."""
    found: dict[str, None] = {}
    for seed in SEEDS:
        for participant in (
            encoders.participant_of(ATTEMPTED_PRESET, seed),
            pretraining_cohort.target(seed, "imagined"),
        ):
            found |= dict.fromkeys(participant.sentences("val") + participant.sentences("test"))
    return list(found)


def comparable(text: str) -> str:
    """A sentence as sentences are compared."""
    from bit_speech.data.splits import comparable_text

    return comparable_text(text.replace("-", " "))


@dataclass(frozen=True)
class Person:
    """A simulated participant with an encoder: `attempted`, `imagined_scratch` or `imagined_pretrained`, and a seed."""

    kind: str
    seed: int

    @property
    def folder(self) -> Path:
        """Where everything of this person is kept."""
        return WORK / "people" / f"{self.kind}-{self.seed}"

    @cached_property
    def participant(self) -> Any:
        """The simulated participant."""
        if self.kind == "attempted":
            return encoders.participant_of(ATTEMPTED_PRESET, self.seed)
        return pretraining_cohort.target(self.seed, "imagined")

    @cached_property
    def trials(self) -> dict[str, list[dict[str, Any]]]:
        """Rows of the three splits, z-scored within the block; texts as the participant was shown them.

        Sentences that a language model has read are in no split that is scored.
        """
        found = {}
        checked = WORK / "llm" / "text_checked.json"
        known = set(json.loads(checked.read_text())["fifty_word_sentences_read"]) if checked.exists() else set()
        for name, split in (("train", "train"), ("validation", "val"), ("test", "test")):
            rows = trials_of(self.participant, split)
            for row, trial in zip(rows, self.participant.trials(split), strict=True):
                row["phonemes"] = trial.phonemes
            found[name] = [row for row in rows if split == "train" or comparable(row["text"]) not in known]
        return found

    def texts(self, split: str) -> list[str]:
        """What was said, normalised as it is scored."""
        from bit_speech.evaluation import normalize_text

        return [normalize_text(row["text"]) for row in self.trials[split]]

    def encoder(self) -> Path:
        """Folder of the phoneme encoder, trained when it is missing."""
        folder = self.folder / "encoder"
        if not (folder / "config.json").exists():
            if self.kind == "attempted":
                trained = encoders.WORK / f"{ATTEMPTED_PRESET}-{self.seed}" / "bit"
                encoders.prepare(ATTEMPTED_PRESET, self.seed)
                if not (trained / "metrics.json").exists():
                    encoders.run_cell(ATTEMPTED_PRESET, "bit", self.seed, threads=1)
                best = json.loads((trained / "metrics.json").read_text())["best"]["checkpoint"]
                shutil.copytree(
                    trained / Path(best).name, folder, ignore=shutil.ignore_patterns("*.pt", "*.pth", "*.py")
                )
            else:
                trainer, _ = pretraining.fine_tune(
                    IMAGINED[self.kind], "imagined", len(self.trials["train"]), self.seed
                )
                trainer.save_model(str(folder))
        return folder

    def log_probs(self, split: str) -> list[np.ndarray]:
        """What the encoder's phoneme head says of every trial, (frames, 41) each."""
        path = self.folder / f"log_probs.{split}.npz"
        if not path.exists():
            values = encode(self.encoder(), self.trials[split])
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, values=np.concatenate(values), lengths=[len(one) for one in values])
        stored = np.load(path)
        return np.split(stored["values"], np.cumsum(stored["lengths"])[:-1])

    def cascade(self) -> dict[str, Any]:
        """N-best lists of the beam search for validation and test, with weights tuned on validation."""
        path = self.folder / "cascade.json"
        if not path.exists():
            write_json(path, decode_words(self))
        return json.loads(path.read_text())


def encode(folder: Path, rows: list[dict[str, Any]], batch_size: int = 25) -> list[np.ndarray]:
    """Phoneme log-probabilities of trials whose features are z-scored already."""
    import torch

    from bit_speech import BITForCTC

    model = BITForCTC.from_pretrained(folder).eval()
    extractor = ready_extractor(folder)
    found: list[np.ndarray] = []
    for start in range(0, len(rows), batch_size):
        members = rows[start : start + batch_size]
        inputs = extractor([row["features"] for row in members], return_tensors="pt")
        with torch.no_grad():
            outputs = model(**inputs)
        for values, mask in zip(outputs.logits.float().log_softmax(-1).numpy(), outputs.frame_mask.numpy()):
            found.append(values[mask])
    return found


def ready_extractor(folder: Path) -> Any:
    """Feature extractor of an encoder for features that are z-scored already."""
    from bit_speech import BITFeatureExtractor

    extractor = BITFeatureExtractor.from_pretrained(folder)
    return BITFeatureExtractor(**{**extractor.to_dict(), "normalization": "none"})


def language_model(person: Person) -> tuple[Any, Any]:
    """Word 3-gram and lexicon of a person; no text holds a held-out sentence of anybody.

    Attempted speech: all shipped sentences, every word that CMUdict pronounces. Imagined speech: the fifty words, and
    the person's own training sentences.
    """
    from bit_speech.decoding import Lexicon, NGramLM, build_ngram_lm
    from bit_speech.demo import language_model_sentences
    from bit_speech.simulation.text import FIFTY_WORDS
    from bit_speech.training import select_sentences

    if person.kind == "attempted":
        sentences = select_sentences(language_model_sentences([]), exclude=held_out_sentences())
        path = WORK / "lm.bin"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            build_ngram_lm(sentences, order=3).save(path)
        return NGramLM.load(path), Lexicon.from_cmudict(sorted({word for line in sentences for word in line.split()}))
    return build_ngram_lm(person.texts("train"), order=3), Lexicon.from_cmudict(FIFTY_WORDS)


def decode_words(person: Person) -> dict[str, Any]:
    """The cascade of a person, on one thread."""
    import time

    from bit_speech.decoding import BeamSearchDecoder, tune_decoder

    lm, lexicon = language_model(person)
    decoder = BeamSearchDecoder(lexicon, lm, beam_size=200, num_hypotheses=NUM_HYPOTHESES, acoustic_scale=0.4)
    decoder = tune_decoder(
        person.log_probs("validation"),
        person.texts("validation"),
        decoder,
        lm_weights=(0.7, 1.0, 1.4),
        max_sentences=100,
    )
    result: dict[str, Any] = {"words": len(lexicon), "settings": {
        name: getattr(decoder, name) for name in ("acoustic_scale", "lm_weight", "word_score", "blank_penalty")
    }}  # fmt: skip
    for split in ("validation", "test"):
        start = time.process_time()
        found = decoder.decode_batch(person.log_probs(split))
        result[f"{split}_cpu_ms"] = 1000 * (time.process_time() - start) / len(found)
        result[split] = [[one.text for one in nbest] for nbest in found]
    return result
