"""Compare speech models by how well their layers predict the brains of people who listen.

    python examples/encode_voxels.py --config examples/configs/encode_voxels_simulated.yaml
    python examples/encode_voxels.py --stories FOLDER --models facebook/wav2vec2-base runs/brain_tune_lebel/merged

Layers are read in causal windows, low-pass filtered to the volumes, delayed, and mapped to voxels by ridge regressions
whose penalties are chosen on held-out stories. Reported are the plain correlation with the test stories, its share of
the noise ceiling, regions, how many voxels pass a permutation test, and what is gained over the first model.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModel
from transformers.hf_argparser import HfArg

from bit_speech import StoryFeatureExtractor
from bit_speech.arguments import ExperimentParser
from bit_speech.data.story_runs import StoryRun, list_runs, read_run, read_story
from bit_speech.evaluation.encoding import (
    StoryPrediction,
    block_permutation_test,
    false_discovery_rate,
    fit_stories,
    participant_bootstrap,
    pooled_correlation,
    region_table,
    story_block_bootstrap,
)
from bit_speech.evaluation.encoding_figures import curves_figure, surface_figure, surface_places
from bit_speech.evaluation.noise_ceiling import noise_ceiling, share_of_ceiling
from bit_speech.evaluation.story_features import story_features
from bit_speech.files import write_bytes, write_json
from bit_speech.machine import git_commit, hardware


@dataclass
class EncodingArguments:
    """Whose brains, which models, which layers."""

    _show_all_settings = True

    stories: str | None = HfArg(default=None, help="Folder of stories, from a converter or from brain_tune.py.")
    models: list[str] = HfArg(default_factory=list, help="Folders or Hub names; the first is what others are beside.")
    participants: list[str] = HfArg(default_factory=list, help="Default everybody.")
    layers: list[int] = HfArg(default_factory=lambda: [2, 5, 7, 8, 10, 12], help="Hidden states; 0 is the input.")
    upper_layers: int = HfArg(default=3, help="Averages are over the last so many of the layers.")
    story_counts: list[int] = HfArg(default_factory=list, help="Fit to the first so many stories; default all.")
    delays: list[int] = HfArg(default_factory=lambda: [1, 2, 3, 4], help="TRs from sound to BOLD.")
    window_s: float = HfArg(default=16.1, help="Seconds of a causal window.")
    stride_s: float = HfArg(default=0.1, help="Seconds from one window to the next.")
    least_ceiling: float = HfArg(default=0.05, help="Voxels at or below have no share of the ceiling.")
    test_trim: int = HfArg(default=0, help="TRs of test stories left out at the start, 40 in the published code.")
    regions: str = HfArg(default="paper", help="paper or released_code; needs areas.json or cohort.json.")
    fsaverage: str | None = HfArg(
        default=None, help="Folder of FreeSurfer's fsaverage: maps of the scores, for runs that were projected to it."
    )
    num_permutations: int = HfArg(default=1000, help="Of the significance test; 0 leaves it out.")
    batch_size: int = HfArg(default=16, help="Windows that pass a model together.")
    output_dir: str = HfArg(default="runs/encode_voxels", help="Where encoding.json and encoding.png go.")

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.stories is None or not self.models:
            raise ValueError("give --stories (a folder) and --models (at least one)")


def features_of(
    name: str, arguments: EncodingArguments, times: dict[str, np.ndarray]
) -> dict[str, dict[int, np.ndarray]]:
    """Layers of one model for every story."""
    model = AutoModel.from_pretrained(name).eval()
    extractor = StoryFeatureExtractor(window_s=arguments.window_s, stride_s=arguments.stride_s)
    return {
        story: story_features(
            model, read_story(arguments.stories or "", story), clock, extractor, arguments.layers, arguments.delays,
            batch_size=arguments.batch_size,
        )
        for story, clock in times.items()
    }  # fmt: skip


def areas_of(folder: Path) -> list[str] | None:
    """Area of every voxel, when the folder knows it."""
    for name in ("areas.json", "cohort.json"):
        if (folder / name).is_file():
            return json.loads((folder / name).read_text(encoding="utf-8"))["areas"]
    return None


def draw_maps(maps: dict[str, np.ndarray], folder: Path, fsaverage: str, output: Path) -> None:
    """Scores of the first model on the surface, and what the others gain over it."""
    numbers = json.loads((folder / "areas.json").read_text(encoding="utf-8"))["vertices"]
    places, (first, *others) = surface_places(fsaverage, numbers), maps
    write_bytes(output / "map.png", surface_figure(maps[first], places, first))
    for number, name in enumerate(others, 1):
        figure = surface_figure(maps[name] - maps[first], places, f"{name} minus {first}", "gain in correlation")
        write_bytes(output / f"map_gain_{number}.png", figure)


def predict(
    features: dict[str, dict[int, np.ndarray]], runs: dict[str, StoryRun], training: list[str], layer: int, trim: int
) -> list[StoryPrediction]:
    """Held-out predictions of the test stories of one participant."""
    inputs = {story: features[story][layer] for story in runs}
    responses = {story: run.responses for story, run in runs.items()}
    fit = fit_stories(inputs, responses, training)
    tests = [story for story, run in runs.items() if run.split == "test"]
    return [StoryPrediction(s, fit.predict(inputs[s])[trim:], responses[s][trim:]) for s in tests]


def score(
    by_layer: list[list[StoryPrediction]], base: list[list[StoryPrediction]] | None, runs: dict[str, StoryRun],
    arguments: EncodingArguments, areas: list[str] | None,
) -> dict[str, Any]:  # fmt: skip
    """Numbers of one participant and model, averaged over the upper layers."""
    upper = by_layer[-arguments.upper_layers :]
    mean = np.mean([pooled_correlation(stories) for stories in upper], axis=0)
    found: dict[str, Any] = {"correlation": float(mean.mean())}
    found["correlation_by_layer"] = [float(pooled_correlation(stories).mean()) for stories in by_layer]
    repeats = [run.repeats[:, arguments.test_trim :] for run in runs.values() if run.repeats is not None]
    if repeats:
        ceiling = noise_ceiling(np.concatenate(repeats, axis=1))
        share = share_of_ceiling(mean, ceiling, arguments.least_ceiling)
        found["share_of_ceiling"] = float(np.nanmean(share)) if np.isfinite(share).any() else None
        found["voxels_above_ceiling"] = int(np.isfinite(share).sum())
    if areas is not None:
        found["regions"] = region_table(mean, areas, arguments.regions)
    if arguments.num_permutations:
        p_values = block_permutation_test(upper[-1], num_permutations=arguments.num_permutations)
        found["significant_voxels_of_last_layer"] = int((false_discovery_rate(p_values) <= 0.05).sum())
    if base is not None:
        found["gain_of_last_layer"] = story_block_bootstrap(upper[-1], base[-1])
    return found


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Listen, fit and score."""
    parser = ExperimentParser([EncodingArguments], __doc__ or "")
    (arguments,) = parser.parse(argv)
    folder = Path(arguments.stories or "")
    known = list_runs(folder)
    people = arguments.participants or sorted(known)
    runs = {name: {story: read_run(folder, name, story, with_repeats=True) for story in known[name]} for name in people}
    times: dict[str, np.ndarray] = {}
    for by_story in runs.values():
        for story, run in by_story.items():
            if not np.array_equal(times.setdefault(story, run.tr_times_s), run.tr_times_s):
                raise ValueError(f"participants have different clocks in {story}; encode them one by one")
    features = {name: features_of(name, arguments, times) for name in arguments.models}
    rows: list[dict[str, Any]] = []
    maps: dict[str, list[np.ndarray]] = {name: [] for name in arguments.models}
    for person in people:
        training = [story for story, run in runs[person].items() if run.split != "test"]
        for count in (totals := arguments.story_counts or [len(training)]):
            base = None
            for name in arguments.models:
                by_layer = [
                    predict(features[name], runs[person], training[:count], layer, arguments.test_trim)
                    for layer in arguments.layers
                ]
                numbers = score(by_layer, base, runs[person], arguments, areas_of(folder))
                if count == totals[-1]:
                    upper = by_layer[-arguments.upper_layers :]
                    maps[name].append(np.mean([pooled_correlation(stories) for stories in upper], axis=0))
                rows.append({"participant": person, "model": name, "stories": count, **numbers})
                base = by_layer if base is None else base
    counts = sorted({row["stories"] for row in rows})
    curves = {
        name: [
            (n, *participant_bootstrap([r["correlation"] for r in rows if (r["model"], r["stories"]) == (name, n)]))
            for n in counts
        ]
        for name in arguments.models
    }
    result = {"rows": rows, "mean_over_participants": curves, "settings": parser.resolved, "hardware": hardware()}
    result["git_commit"] = git_commit()
    output = Path(arguments.output_dir)
    write_json(output / "encoding.json", result)
    shown = {name: Path(name).parent.name or name if Path(name).name == "merged" else name for name in curves}
    figure = curves_figure({shown[n]: c for n, c in curves.items()}, "stories", "correlation with test stories")
    write_bytes(output / "encoding.png", figure)
    if arguments.fsaverage:
        means = {shown[name]: np.mean(scores, axis=0) for name, scores in maps.items()}
        draw_maps(means, folder, arguments.fsaverage, output)
    print(json.dumps(curves, indent=2))
    return result


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"encode_voxels: {error}")
