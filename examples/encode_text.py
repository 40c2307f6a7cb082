"""Predict real BOLD of unheard stories from their words, beside controls that must fail.

    python examples/encode_text.py --config examples/configs/encode_text_uts03.yaml --runs FOLDER

`FOLDER` holds one `<participant>_<split>_<story>.npz` per run with `X` (TRs, components) and `text` (TRs,), as in the
decoding data of github.com/microsoft/automated-brain-explanations (made from ds003020, CC0), and optionally `labels`
(TRs, questions). Every story is predicted by a ridge regression fitted to other stories; penalties are chosen among
these. Controls run through the same steps with the words of another time (`time_shifted`: each story's features rotated
by half its length) or in another order (`permuted`: blocks of features shuffled within each story).
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers.hf_argparser import HfArg

from bit_speech.arguments import ExperimentParser
from bit_speech.data.story_time import make_delays, zscore
from bit_speech.data.text_features import WordVectors, count_phonemes, words_of
from bit_speech.evaluation.encoding import (
    StoryPrediction,
    block_permutation_test,
    false_discovery_rate,
    pooled_correlation,
    predict_held_out_stories,
    story_block_bootstrap,
)
from bit_speech.evaluation.encoding_figures import controls_figure
from bit_speech.files import write_bytes, write_json
from bit_speech.machine import git_commit, hardware
from bit_speech.simulation.text import load_sentences

BANDS = ("rate", "phonemes", "lexical", "vectors", "questions")


@dataclass
class EncodingArguments:
    """Whose brain, which features, which tests."""

    _show_all_settings = True

    runs: str | None = HfArg(default=None, help="Folder of <participant>_<split>_<story>.npz.")
    participant: str = HfArg(default="UTS03", help="Whose runs.")
    bands: list[str] = HfArg(default_factory=lambda: list(BANDS[:4]), help=f"Features, of {', '.join(BANDS)}.")
    each_band: bool = HfArg(default=True, help="Also score every band alone.")
    delays: list[int] = HfArg(default_factory=lambda: [1, 2, 3, 4], help="TRs from word to BOLD.")
    vector_size: int = HfArg(default=100, help="Numbers per word vector.")
    block_trs: int = HfArg(default=10, help="TRs that stay together in permutations and draws.")
    num_permutations: int = HfArg(default=1000, help="Of the significance test.")
    seed: int = HfArg(default=0, help="Of permutations and draws.")
    output_dir: str = HfArg(default="runs/encode_text", help="Where encoding.json and encoding.png go.")

    def __post_init__(self) -> None:
        """Refuse features that do not exist."""
        unknown = [band for band in self.bands if band not in BANDS]
        if unknown or not self.bands:
            raise ValueError(f"--bands {' '.join(unknown) or '(none)'} is unknown; choose of {', '.join(BANDS)}")
        if self.runs is None:
            raise ValueError("give --runs, the folder with one npz per story run")


def read_runs(arguments: EncodingArguments) -> dict[str, dict[str, np.ndarray]]:
    """BOLD and words of every story of the participant."""
    found = {}
    for path in sorted(Path(arguments.runs or "").glob(f"{arguments.participant}_*.npz")):
        with np.load(path, allow_pickle=False) as archive:
            run = {name: archive[name] for name in ("X", "text", "labels") if name in archive.files}
        missing = [name for name in ("X", "text") if name not in run]
        if missing or len(run["X"]) != len(run["text"]):
            raise ValueError(f"{path} lacks {missing or 'a text for every TR'}")
        found[path.stem.split("_", 2)[2]] = run
    if len(found) < 3:
        raise ValueError(
            f"{arguments.runs} holds {len(found)} run(s) of {arguments.participant}; at least 3 are needed"
        )
    shortest = min(len(run["X"]) for run in found.values())
    if shortest < 8 * arguments.block_trs:
        raise ValueError(f"a run has {shortest} TRs, fewer than 8 blocks of {arguments.block_trs}: lower --block_trs")
    return found


def make_bands(runs: dict[str, dict[str, np.ndarray]], arguments: EncodingArguments) -> dict[str, dict[str, Any]]:
    """Features of every band and story, one row per TR, z-scored within the story."""
    # Vectors take a few seconds; a run without them should not wait.
    sentences = (text for source in ("tatoeba", "read_speech") for text in load_sentences(source))
    needed = {"lexical", "vectors"} & set(arguments.bands)
    vectors: Any = WordVectors(sentences, arguments.vector_size) if needed else None
    makers = {
        "rate": lambda run: np.array([[float(len(words_of(text)))] for text in run["text"]]),
        "phonemes": lambda run: count_phonemes(run["text"]),
        "lexical": lambda run: vectors.lexical(run["text"]),
        "vectors": lambda run: vectors(run["text"]),
        "questions": lambda run: run["labels"].astype(np.float64),
    }
    return {band: {story: zscore(makers[band](run)) for story, run in runs.items()} for band in arguments.bands}


def rotate(features: np.ndarray, arguments: EncodingArguments) -> np.ndarray:
    """The same features half a story later."""
    return np.roll(features, len(features) // 2, axis=0)


def shuffle_blocks(features: np.ndarray, arguments: EncodingArguments) -> np.ndarray:
    """The same features with blocks in another order, none of them at its own place or beside it."""
    blocks = np.array_split(np.arange(len(features)), len(features) // arguments.block_trs)
    rng, places = np.random.default_rng([arguments.seed, len(features)]), np.arange(len(blocks))
    order = rng.permutation(places)
    while np.abs(order - places).min() < 2:
        order = rng.permutation(places)
    return features[np.concatenate([blocks[i] for i in order])]


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Fit, test and draw."""
    parser = ExperimentParser([EncodingArguments], __doc__ or "")
    (arguments,) = parser.parse(argv)
    runs = read_runs(arguments)
    responses = {story: run["X"] for story, run in runs.items()}
    bands = make_bands(runs, arguments)

    def predict(names: list[str], change: Any = None) -> list[StoryPrediction]:
        features = {}
        for story in runs:
            joined = np.concatenate([bands[name][story] for name in names], axis=1)
            features[story] = make_delays(change(joined, arguments) if change else joined, arguments.delays)
        return predict_held_out_stories(features, responses, penalties=np.logspace(1, 6, 16))

    models = {"words": predict(arguments.bands)}
    models["time_shifted"] = predict(arguments.bands, rotate)
    models["permuted"] = predict(arguments.bands, shuffle_blocks)
    if arguments.each_band and len(arguments.bands) > 1:
        models |= {band: predict([band]) for band in arguments.bands}
    settings = {"block_trs": arguments.block_trs, "seed": arguments.seed}
    scores: dict[str, Any] = {}
    for name, stories in models.items():
        p_values = block_permutation_test(stories, num_permutations=arguments.num_permutations, **settings)
        found = pooled_correlation(stories)
        scores[name] = {
            "mean_correlation": story_block_bootstrap(stories, **settings),
            "significant": int((false_discovery_rate(p_values) <= 0.05).sum()),
            "correlations": " ".join(f"{value:.4f}" for value in found),
        }
        if name != "words":
            scores[name]["words_are_better_by"] = story_block_bootstrap(models["words"], stories, **settings)
        if name == "words":
            q_values = false_discovery_rate(p_values)
            scores[name]["best"] = {f"component {i}": round(float(found[i]), 4) for i in np.argsort(-found)[:5]}
    result = {
        "participant": arguments.participant,
        "stories": len(runs),
        "trs": sum(len(run["X"]) for run in runs.values()),
        "components": next(iter(responses.values())).shape[1],
        "features": sum(next(iter(bands[band].values())).shape[1] for band in arguments.bands),
        "scores": scores,
        "settings": parser.resolved,
        "git_commit": git_commit(),
        "hardware": hardware(),
    }
    folder = Path(arguments.output_dir)
    write_json(folder / "encoding.json", result)
    shown = {name: pooled_correlation(models[name]) for name in ("words", "time_shifted", "permuted")}
    means = {name: scores[name]["mean_correlation"] for name in scores}
    write_bytes(folder / "encoding.png", controls_figure(shown, q_values <= 0.05, means))
    print(
        json.dumps({name: {k: v for k, v in s.items() if k != "correlations"} for name, s in scores.items()}, indent=1)
    )
    return result


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"encode_text: {error}")
