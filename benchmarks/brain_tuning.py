"""Does tuning to many brains help with new ones? Held-out participants of a simulated cohort, three cohorts.

    python -m benchmarks.brain_tuning                      # every missing cell (2 core minutes each), then the table
    python -m benchmarks.brain_tuning --seeds 0 --conditions multi single
    python -m benchmarks.brain_tuning --tables             # only collect the finished cells

Six participants hear the same stories: S00 to S02 for tuning, S03 to S05 held out. Encoding models are fitted to
stories that no tuning saw, with few or many of them, and scored on two more that were heard five times. Every condition
makes the same number of updates. Rates were tried on the pilot cohort of seed 100, which is not in the table. The
speech model is the small one of examples/pretrain_wav2vec2_speech.py; its sentences are none of the stories'.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, save_result
from bit_speech.files import write_json

WORK = Path("runs/benchmarks/brain_tuning")
SPEECH = Path("runs/benchmarks/wav2vec2_brain/speech_body")
TUNED, HELD_OUT = ("S00", "S01", "S02"), ("S03", "S04", "S05")
# Condition -> whom it is tuned on, share of the tuning stories, fields of the model, control.
CONDITIONS: dict[str, dict[str, Any]] = {
    "pretrained": {"people": ()},
    "multi": {"people": TUNED},
    "single": {"people": TUNED[:1]},
    "permuted": {"people": TUNED, "control": "permuted"},
    "multi_low_rank": {"people": TUNED, "model": {"head": "low_rank", "deviation_rank": 8}},
    "multi_correlation": {"people": TUNED, "model": {"loss": "correlation"}},
    "multi_few": {"people": TUNED, "stories": 2},
    "single_few": {"people": TUNED[:1], "stories": 2},
    "multi_few_correlation": {"people": TUNED, "stories": 2, "model": {"loss": "correlation"}},
    "time_shifted": {"people": TUNED, "control": "time_shifted"},
    "multi_separate": {"people": TUNED, "model": {"head": "separate"}},
    # Without any brain: the updates learn to spell the same stories, or to predict what a language model makes of them
    # (text has no delay, so that a clip ends in the middle of its volume).
    "stimulus": {"people": ()},
    "llm": {"people": ("llm",), "end_offset_s": 1.0},
}
ENCODING_STORIES = (1, 2, 4, 6)
# Whose speech is looked at too: spelling and a probe of sounds.
CHECKED = ("pretrained", "multi", "single", "stimulus", "llm")
LANGUAGE = WORK / "causal_lm"


@dataclass(frozen=True)
class Recipe:
    """Every number of the experiment."""

    cohort: dict[str, Any] = field(
        default_factory=lambda: {"num_voxels": 120, "snr": 1.0, "deviation": 0.3, "shared_dims": 3}
    )
    tuning_stories: int = 20
    encoding_stories: int = 6
    test_stories: int = 2
    sentences_per_story: int = 24
    # A clip of 4 s that ends 3 s before its volume begins: around the peak of the response, at half the cost of 8 s.
    clip_s: float = 4.0
    end_offset_s: float = -3.0
    updates: int = 160
    batch: int = 16
    learning_rate: float = 2e-3
    head_learning_rate: float = 2e-3
    weight_decay: float = 0.01
    layers: tuple[int, ...] = (3, 4)
    delays: tuple[int, ...] = (0, 1, 2, 3, 4)

    def key(self) -> str:
        """Short hash: cells of other recipes are never mixed with these."""
        return hashlib.blake2b(json.dumps(asdict(self), sort_keys=True).encode(), digest_size=6).hexdigest()


RECIPE = Recipe()


def cohort_of(seed: int) -> Path:
    """Write the cohort of a seed, once."""
    from bit_speech.simulation.story_cohort import CohortConfig, speak_espeak, write_cohort

    folder = WORK / f"cohort-{seed}-{RECIPE.key()}"
    if not (folder / "cohort.json").exists():
        write_cohort(
            folder,
            CohortConfig(seed=seed, **RECIPE.cohort),
            num_participants=len(TUNED) + len(HELD_OUT),
            num_stories=RECIPE.tuning_stories + RECIPE.encoding_stories + RECIPE.test_stories,
            sentences_per_story=RECIPE.sentences_per_story,
            num_test=RECIPE.test_stories,
            num_validation=RECIPE.encoding_stories,
            speak=speak_espeak,
        )
    return folder


def speech_body() -> Path:
    """The small speech model, pretrained once."""
    if not (SPEECH / "config.json").exists():
        command = ["examples/pretrain_wav2vec2_speech.py", "--config", "examples/configs/speech_body.yaml"]
        subprocess.run([sys.executable, *command, "--output_dir", str(SPEECH)], check=True)
    return SPEECH


def language_model() -> Path:
    """The small language model whose layers take the place of brains, trained once."""
    if not (LANGUAGE / "config.json").exists():
        command = ["examples/train_causal_lm.py", "--config", "examples/configs/causal_lm_small.yaml"]
        subprocess.run([sys.executable, *command, "--output_dir", str(LANGUAGE)], check=True)
    return LANGUAGE


def write_llm(folder: Path) -> None:
    """Write the run of the language model beside those of the participants, once."""
    from bit_speech.data.story_runs import list_runs
    from examples.llm_targets import main as write_targets

    if "llm" not in list_runs(folder):
        write_targets([
            "--stories", str(folder), "--language_model", str(language_model()), "--like", "S00",
            "--layers", "2", "3", "4",
        ])  # fmt: skip


def spell_stories(seed: int, folder: Path) -> tuple[Any, list[float]]:
    """The speech model after its updates learnt to spell the tuning stories."""
    from transformers import AutoModelForCTC, set_seed

    from bit_speech import BrainTunedForVoxelPrediction
    from bit_speech.data.story_runs import read_story, read_words
    from bit_speech.training.stimulus_tuning import spoken_clips, tune_to_stimuli
    from processing_bit.tokenization_spelling import SpellingTokenizer

    set_seed(seed)
    tokenizer, clips = SpellingTokenizer(), []
    for story in stories_of(folder, "train"):
        words = read_words(folder, story)["word"]
        spoken = spoken_clips(read_story(folder, story), words, RECIPE.clip_s)
        clips += [(clip, tokenizer.encode_text(text)) for clip, text in spoken]
    model = BrainTunedForVoxelPrediction.from_speech_checkpoint(speech_body(), num_voxels=1, clip_s=RECIPE.clip_s)
    losses = tune_to_stimuli(
        model, AutoModelForCTC.from_pretrained(speech_body()), clips, RECIPE.updates, RECIPE.batch,
        RECIPE.learning_rate, RECIPE.weight_decay, seed,
    )  # fmt: skip
    return model.merge_body(), losses


def stories_of(folder: Path, split: str) -> list[str]:
    """Names of the stories of a part."""
    from bit_speech.data.story_runs import list_runs, read_run

    return [story for story in list_runs(folder)["S00"] if read_run(folder, "S00", story).split == split]


def tune(condition: str, seed: int, folder: Path) -> Any:
    """The speech model after tuning, with its updates merged; and the losses."""
    import torch
    from transformers import AutoModel, set_seed

    from bit_speech import BrainTunedForVoxelPrediction, BrainTuningArguments, BrainTuningTrainer, StoryFeatureExtractor
    from bit_speech.training.brain_tuning import StoryRunDataset, fit_head
    from examples.brain_tune import disturb

    settings = CONDITIONS[condition]
    if condition == "stimulus":
        return spell_stories(seed, folder)
    if condition == "llm":
        write_llm(folder)
    if not settings["people"]:
        return AutoModel.from_pretrained(speech_body()).eval(), []
    set_seed(seed)
    stories = stories_of(folder, "train")[: settings.get("stories")]
    data = StoryRunDataset.from_folder(
        folder, [(p, s) for p in settings["people"] for s in stories], settings["people"]
    )
    for run in data.runs:
        run.responses[:] = disturb(run.responses.copy(), settings.get("control", "none"), seed)
    model = BrainTunedForVoxelPrediction.from_speech_checkpoint(
        speech_body(), num_voxels=data.num_voxels, participants=data.participants, clip_s=RECIPE.clip_s,
        **settings.get("model", {}),
    )  # fmt: skip
    output = WORK / "tuning" / f"{condition}.{seed}"
    arguments = BrainTuningArguments(
        output_dir=str(output), max_steps=RECIPE.updates, per_device_train_batch_size=RECIPE.batch,
        learning_rate=RECIPE.learning_rate, head_learning_rate=RECIPE.head_learning_rate,
        weight_decay=RECIPE.weight_decay, eval_strategy="no", save_strategy="no",
        load_best_model_at_end=False, logging_steps=0.1, seed=seed, use_cpu=True, disable_tqdm=True,
        keep_convolutions=True, bf16=torch.cpu._is_avx512_bf16_supported(),
    )  # fmt: skip
    end_offset_s = settings.get("end_offset_s", RECIPE.end_offset_s)
    extractor = StoryFeatureExtractor(clip_s=RECIPE.clip_s, end_offset_s=end_offset_s)
    fit_head(model, data, extractor)
    trainer = BrainTuningTrainer(model, arguments, data, extractor=extractor)
    trainer.train()
    shutil.rmtree(output, ignore_errors=True)
    return model.merge_body(), [log["loss"] for log in trainer.state.log_history if "loss" in log]


def features_of(body: Any, folder: Path) -> dict[str, dict[int, np.ndarray]]:
    """Layers of the stories of encoding and test: mean over the last 2 s of a clip that ends with each TR."""
    import torch

    from bit_speech import StoryFeatureExtractor
    from bit_speech.data.story_runs import read_run, read_story
    from bit_speech.data.story_time import make_delays, zscore

    extractor = StoryFeatureExtractor(clip_s=RECIPE.clip_s)
    found: dict[str, dict[int, np.ndarray]] = {}
    for story in stories_of(folder, "validation") + stories_of(folder, "test"):
        times = read_run(folder, "S00", story).tr_times_s
        clips = torch.from_numpy(extractor(read_story(folder, story), times)["input_values"])
        parts: dict[int, list[np.ndarray]] = {layer: [] for layer in RECIPE.layers}
        for start in range(0, len(clips), 16):
            with torch.no_grad():
                hidden = body(clips[start : start + 16], output_hidden_states=True).hidden_states
            for layer in RECIPE.layers:
                parts[layer].append(hidden[layer][:, -100:].mean(dim=1).numpy())
        found[story] = {
            layer: make_delays(zscore(np.concatenate(values).astype(np.float64)), RECIPE.delays)
            for layer, values in parts.items()
        }
    return found


def score(features: dict[str, dict[int, np.ndarray]], folder: Path) -> list[dict[str, Any]]:
    """Encoding of every participant with few and many stories: mean over voxels and layers, by area."""
    from bit_speech.data.story_runs import read_run
    from bit_speech.evaluation.encoding import StoryPrediction, fit_stories, pooled_correlation, region_table
    from bit_speech.evaluation.noise_ceiling import noise_ceiling

    areas = json.loads((folder / "cohort.json").read_text())["areas"]
    regions = {area: (area,) for area in dict.fromkeys(areas)}
    encoding, tests = stories_of(folder, "validation"), stories_of(folder, "test")
    rows = []
    for person in (*TUNED, *HELD_OUT):
        runs = {story: read_run(folder, person, story, with_repeats=True) for story in encoding + tests}
        ceiling = noise_ceiling(np.concatenate([runs[story].repeats for story in tests], axis=1))
        responses = {story: run.responses.astype(np.float64) for story, run in runs.items()}
        for count in ENCODING_STORIES:
            by_layer = []
            for layer in RECIPE.layers:
                inputs = {story: features[story][layer] for story in runs}
                training = encoding[:count]
                if count == 1:  # penalties need two parts to be chosen on
                    half = len(responses[training[0]]) // 2
                    cut = {"a": slice(None, half), "b": slice(half, None)}
                    inputs |= {name: inputs[training[0]][part] for name, part in cut.items()}
                    responses |= {name: responses[training[0]][part] for name, part in cut.items()}
                    training = list(cut)
                fit = fit_stories(inputs, responses, training, np.logspace(0, 6, 13))
                found = [StoryPrediction(story, fit.predict(inputs[story]), responses[story]) for story in tests]
                by_layer.append(pooled_correlation(found))
            mean = np.mean(by_layer, axis=0)
            rows.append({
                "participant": person, "stories": count, "correlation": float(mean.mean()),
                "share_of_ceiling": float(mean.mean() / ceiling.mean()), "areas": region_table(mean, areas, regions),
            })  # fmt: skip
    return rows


def speech_checks(body: Any) -> dict[str, Any]:
    """What tuning did to speech itself: spelling with the untouched head; probes of sounds and types of sentences.

    The sentences are those that the pretraining of the speech model held out.
    """
    import torch
    from transformers import AutoModelForCTC, Wav2Vec2FeatureExtractor

    from bit_speech.data.text_features import count_phonemes
    from bit_speech.evaluation import character_error_rate
    from bit_speech.evaluation.probes import probe_layers, sentence_types, utterance_vectors
    from examples.pretrain_wav2vec2_speech import VOICES, SpeechCollator, choose_sentences, speak, spell
    from processing_bit.tokenization_spelling import SpellingTokenizer

    texts = choose_sentences(3000, 6)[:150]
    spoken = [speak(text, VOICES[i % len(VOICES)], 200) for i, text in enumerate(texts)]
    speller = AutoModelForCTC.from_pretrained(speech_body()).eval()
    speller.base_model.load_state_dict(body.state_dict())
    tokenizer = SpellingTokenizer()
    rows = [{"input_values": audio, "labels": tokenizer.encode_text(text)} for audio, text in zip(spoken, texts)]
    collate = SpeechCollator(Wav2Vec2FeatureExtractor(return_attention_mask=True), speller, "ctc")
    with torch.no_grad():
        heard = spell(speller, collate, rows[:40], tokenizer)
    sounds = count_phonemes(texts) > 0
    vectors = utterance_vectors(body, spoken)
    probes = probe_layers(vectors[:, 40:], sounds[40:], vectors[:, :40], sounds[:40], "present", learning_rate=1e-2)
    types = sentence_types(texts)
    typed = probe_layers(vectors[:, 40:], types[40:], vectors[:, :40], types[:40], "class", learning_rate=1e-2)
    return {
        "cer": character_error_rate(texts[:40], heard).rate,
        "sounds_micro_f1": [layer["micro_f1"] for layer in probes],
        "sounds_macro_f1": [layer["macro_f1"] for layer in probes],
        "types_micro_f1": [layer["micro_f1"] for layer in typed],
        "types_macro_f1": [layer["macro_f1"] for layer in typed],
    }


def run_cell(condition: str, seed: int) -> dict[str, Any]:
    """Tune, listen, fit and score."""
    import torch

    torch.set_num_threads(1)
    start = time.process_time()
    folder = cohort_of(seed)
    body, losses = tune(condition, seed, folder)
    tuned = time.process_time()
    rows = score(features_of(body, folder), folder)
    checks = speech_checks(body) if condition in CHECKED else {}
    result = {
        "condition": condition, "seed": seed, "recipe": RECIPE.key(), "rows": rows, "losses": losses, "speech": checks,
        "minutes_of_tuning": _minutes(folder, condition), "tuning_cpu_seconds": tuned - start,
        "cpu_seconds": time.process_time() - start,
    }  # fmt: skip
    write_json(WORK / "cells" / f"{condition}.{seed}.{RECIPE.key()}.json", result)
    return result


def _minutes(folder: Path, condition: str) -> float:
    """Minutes of BOLD that a condition is tuned on, over all its participants."""
    from bit_speech.data.story_runs import read_run

    settings = CONDITIONS[condition]
    stories = stories_of(folder, "train")[: settings.get("stories")]
    return (
        len(set(settings["people"]) & set(TUNED))
        * sum(2 * len(read_run(folder, "S00", s).responses) for s in stories)
        / 60
    )


def read_cells() -> list[dict[str, Any]]:
    """Finished cells of this recipe: those on disk, and those that only the published results still hold."""
    cells = {}
    published = RESULTS / "brain_tuning.json"
    if published.exists():
        cells = {(c["condition"], c["seed"], c["recipe"]): c for c in json.loads(published.read_text())["cells"]}
    for path in sorted((WORK / "cells").glob("*.json")):
        cell = json.loads(path.read_text())
        cells[cell["condition"], cell["seed"], cell["recipe"]] = cell
    return [cell for key, cell in sorted(cells.items()) if key[2] == RECIPE.key() and key[1] < 100]


def _mean(cell: dict[str, Any], people: tuple[str, ...], stories: int, value: str = "correlation") -> list[float]:
    return [row[value] for row in cell["rows"] if row["participant"] in people and row["stories"] == stories]


def summarise() -> dict[str, Any]:
    """Put finished cells into rows, with intervals over participants, and write them."""
    from bit_speech.evaluation.encoding import participant_bootstrap
    from bit_speech.evaluation.encoding_figures import curves_figure
    from bit_speech.files import write_bytes

    cells = read_cells()
    by_key = {(cell["condition"], cell["seed"]): cell for cell in cells}
    rows, curves = [], {}
    for condition in CONDITIONS:
        seeds = [seed for seed in range(100) if (condition, seed) in by_key]
        if not seeds:
            continue
        row: dict[str, Any] = {
            "condition": condition, "seeds": seeds,
            "minutes_of_tuning": float(np.mean([by_key[condition, seed]["minutes_of_tuning"] for seed in seeds])),
        }  # fmt: skip
        for name, people in (("held_out", HELD_OUT), ("tuned", TUNED)):
            for stories in ENCODING_STORIES:
                found = [v for seed in seeds for v in _mean(by_key[condition, seed], people, stories)]
                row[f"{name}_{stories}"] = participant_bootstrap(found)
            for other in ("pretrained", "single", "multi"):
                both = [seed for seed in seeds if (other, seed) in by_key]
                if other != condition and both:
                    gains = [
                        a - b
                        for seed in both
                        for a, b in zip(
                            *(_mean(by_key[c, seed], people, ENCODING_STORIES[-1]) for c in (condition, other))
                        )
                    ]
                    row[f"{name}_gain_over_{other}"] = participant_bootstrap(gains)
        pretrained = [by_key["pretrained", seed] for seed in seeds if ("pretrained", seed) in by_key]
        row["pretrained_of_these"] = (
            float(np.mean([_mean(cell, HELD_OUT, ENCODING_STORIES[-1]) for cell in pretrained]))
            if len(pretrained) == len(seeds)
            else None
        )
        row["areas"] = {
            area: float(np.mean([
                r["areas"][area] for seed in seeds for r in by_key[condition, seed]["rows"]
                if r["participant"] in HELD_OUT and r["stories"] == ENCODING_STORIES[-1]
            ]))
            for area in by_key[condition, seeds[0]]["rows"][0]["areas"]
        }  # fmt: skip
        checks = [by_key[condition, seed]["speech"] for seed in seeds if by_key[condition, seed].get("speech")]
        if checks:
            names = dict.fromkeys(name for check in checks for name in check)  # older cells have no types of sentence
            row["speech"] = {name: np.mean([c[name] for c in checks if name in c], axis=0).tolist() for name in names}
        row["share_of_ceiling"] = float(
            np.mean(
                [
                    v
                    for s in seeds
                    for v in _mean(by_key[condition, s], HELD_OUT, ENCODING_STORIES[-1], "share_of_ceiling")
                ]
            )
        )
        rows.append(row)
        if condition in ("pretrained", "single", "multi", "multi_low_rank"):
            curves[condition] = [(stories, *row[f"held_out_{stories}"]) for stories in ENCODING_STORIES]
    result = {
        "command": "python -m benchmarks.brain_tuning",
        "what": "correlation of encoding models with held-out stories, mean over voxels, of simulated participants",
        "recipe": asdict(RECIPE),
        "data_to_match_pretrained": {row["condition"]: data_to_match(row) for row in rows},
        "rows": rows,
        "cells": cells,
    }
    save_result("brain_tuning", result)
    if curves:
        image = curves_figure(
            curves, "stories that encoding models are fitted to", "correlation, held-out participants"
        )
        write_bytes(RESULTS / "brain_tuning.png", image)
    return result


def data_to_match(row: dict[str, Any]) -> float | None:
    """Share of the encoding stories with which a condition reaches what "pretrained" does with all, on its cohorts."""
    goal = row["pretrained_of_these"]
    points = [(stories, row[f"held_out_{stories}"][0]) for stories in ENCODING_STORIES]
    if goal is None or max(value for _, value in points) < goal - 1e-9:  # "pretrained" itself reaches it with all
        return None
    if points[0][1] >= goal:
        return points[0][0] / ENCODING_STORIES[-1]
    for (few, low), (many, high) in zip(points, points[1:]):
        if low <= goal <= high:
            return (few + (goal - low) / max(high - low, 1e-9) * (many - few)) / ENCODING_STORIES[-1]
    return 1.0


def main() -> None:
    """Run the missing cells and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conditions", nargs="+", default=list(CONDITIONS), choices=list(CONDITIONS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--tables", action="store_true", help="only collect the finished cells")
    arguments = parser.parse_args()
    if not arguments.tables:
        done = {(cell["condition"], cell["seed"]) for cell in read_cells()}
        for seed in arguments.seeds:
            for condition in arguments.conditions:
                if (condition, seed) not in done:
                    cell = run_cell(condition, seed)
                    means = [float(np.mean(_mean(cell, HELD_OUT, stories))) for stories in ENCODING_STORIES]
                    shown = " ".join(f"{value:.3f}" for value in means)
                    print(f"{condition}.{seed}: held out {shown}, {cell['cpu_seconds']:.0f} CPU s", flush=True)
    for row in summarise()["rows"]:
        print(
            row["condition"],
            row["seeds"],
            row[f"held_out_{ENCODING_STORIES[-1]}"],
            row.get("held_out_gain_over_pretrained"),
        )


if __name__ == "__main__":
    main()
