"""Ridge for tens of thousands of voxels, noise ceilings, and features of a story: speed and memory beside peers.

    python -m benchmarks.encoding                       # all parts (15 core minutes)
    python -m benchmarks.encoding --parts equality ceiling
    python -m benchmarks.encoding --parts real --real FOLDER   # real BOLD, see examples/encode_text.py

Times are CPU seconds of one thread. What a loop over voxels needs is measured on some voxels and multiplied; the
table says so. Each part is written when it is done, and other parts stay.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, save_result

PARTS = ("equality", "ceiling", "speed", "memory", "features", "real")
VOXELS, LAYERS, DELAYS, HIDDEN, TRS = 30_000, 5, 4, 128, 1000
PENALTIES = np.logspace(1, 6, 10)


def clock(work: Any) -> tuple[float, Any]:
    """CPU seconds of a call, and its result."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def problem(trs: int, features: int, voxels: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random features and responses that follow them a little."""
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((trs, features))
    responses = rng.standard_normal((trs, voxels), dtype=np.float32)
    for start in range(0, voxels, 2000):
        width = min(2000, voxels - start)
        weights = rng.standard_normal((features, width), dtype=np.float32) / np.float32(2 * features**0.5)
        responses[:, start : start + width] += inputs.astype(np.float32) @ weights
    return inputs, responses


def equality() -> dict[str, Any]:
    """Largest differences from scikit-learn and himalaya on the same problem."""
    import torch
    from himalaya.ridge import RidgeCV
    from himalaya.scoring import r2_score
    from sklearn.linear_model import Ridge

    from bit_speech.evaluation.ridge import block_folds, fit_ridge

    inputs, responses = problem(400, 120, 300)
    responses = responses.astype(np.float64)
    folds = block_folds(400)
    splits = [(np.setdiff1d(np.arange(400), fold), fold) for fold in folds]
    peer = RidgeCV(PENALTIES, fit_intercept=True, cv=splits, solver_params={"score_func": r2_score})
    peer.fit(inputs, responses)
    single = Ridge(100.0).fit(inputs, responses)
    found = {}
    for name, dtype in (("double", torch.float64), ("single", torch.float32)):
        fit = fit_ridge(inputs, responses, PENALTIES, folds, score="r2", dtype=dtype)
        one = fit_ridge(inputs, responses, 100.0, dtype=dtype)
        found[name] = {
            "scikit_learn_weights": float(np.abs(one.weights.T - single.coef_).max()),
            "himalaya_weights": float(np.abs(fit.weights - peer.coef_).max()),
            "himalaya_same_penalties": float((np.isclose(fit.penalties, peer.best_alphas_)).mean()),
        }
    return {"problem": "400 TRs, 120 features, 300 voxels, 10 penalties, 5 folds", **found}


def ceiling() -> dict[str, Any]:
    """Noise ceilings of five simulated repeats beside theory."""
    from bit_speech.evaluation.noise_ceiling import noise_ceiling

    rng = np.random.default_rng(0)
    rows = []
    for snr in (0.1, 0.5, 1.0):
        signal = np.sqrt(snr) * rng.standard_normal((1, 300, 1000))
        found = noise_ceiling(signal + rng.standard_normal((5, 300, 1000)))
        rows.append({"snr": snr, "found": float(found.mean()), "theory": float((1 + 1 / (5 * snr)) ** -0.5)})
    return {"problem": "5 repeats of 300 TRs, mean of 1,000 voxels", "rows": rows}


def speed() -> dict[str, Any]:
    """One layer at a time: all voxels together, a loop over voxels, and himalaya."""
    import torch
    from himalaya.ridge import RidgeCV
    from himalaya.scoring import correlation_score
    from sklearn.linear_model import Ridge

    from bit_speech.evaluation.ridge import block_folds, fit_ridge

    torch.set_num_threads(1)
    inputs, responses = problem(TRS, HIDDEN * DELAYS, VOXELS)
    folds = block_folds(TRS)
    splits = [(np.setdiff1d(np.arange(TRS), fold), fold) for fold in folds]
    fit_ridge(inputs[:, :8], responses[:, :8], PENALTIES, folds)  # first use of the libraries
    ours, fit = clock(lambda: fit_ridge(inputs, responses, PENALTIES, folds))
    # The same code on one voxel at a time shares decompositions too; the slope leaves these out.
    few, _ = clock(lambda: fit_ridge(inputs, responses[:, :20], PENALTIES, folds, voxels_at_once=1))
    more, _ = clock(lambda: fit_ridge(inputs, responses[:, :120], PENALTIES, folds, voxels_at_once=1))
    per_voxel = (more - few) / 100

    def textbook(voxel: int) -> float:
        scores = []
        for penalty in PENALTIES:
            one = []
            for training, held_out in splits:
                model = Ridge(penalty).fit(inputs[training], responses[training, voxel])
                one.append(np.corrcoef(model.predict(inputs[held_out]), responses[held_out, voxel])[0, 1])
            scores.append(np.mean(one))
        Ridge(PENALTIES[int(np.argmax(scores))]).fit(inputs, responses[:, voxel])
        return float(PENALTIES[int(np.argmax(scores))])

    naive, chosen = clock(lambda: [textbook(voxel) for voxel in range(2)])
    assert np.allclose(chosen, fit.penalties[:2])
    settings = {"score_func": correlation_score, "n_targets_batch": 2048}
    peer = RidgeCV(PENALTIES, fit_intercept=True, cv=splits, solver_params=settings)
    himalaya, _ = clock(lambda: peer.fit(inputs.astype(np.float32), responses))
    return {
        "problem": f"{VOXELS:,} voxels, {LAYERS} layers of {HIDDEN} x {DELAYS} delays, {TRS:,} TRs, "
        "10 penalties, 5 folds",
        "ours_s": LAYERS * ours,
        "himalaya_s": LAYERS * himalaya,
        "loop_sharing_decompositions_s": LAYERS * (few + per_voxel * (VOXELS - 20)),
        "loop_scikit_learn_s": LAYERS * naive / 2 * VOXELS,
        "measured": "one layer of ours and of himalaya; loops on 120 and 2 voxels",
    }


def memory(features: int = 1024) -> dict[str, Any]:
    """Peak memory of the whole cortex of one participant, in a process of its own."""
    code = (
        "import json, time, numpy as np, torch\n"
        "from benchmarks.encoding import problem\n"
        "from bit_speech.evaluation.ridge import block_folds, fit_ridge\n"
        "from bit_speech.machine import peak_memory_gb\n"
        "torch.set_num_threads(1)\n"
        f"inputs, responses = problem(11000, {features}, 30172)\n"
        "before, start = peak_memory_gb()['process'], time.process_time()\n"
        "fit = fit_ridge(inputs, responses, [1e2, 1e4], block_folds(11000, 2))\n"
        "print(json.dumps({'peak_gb': peak_memory_gb()['process'], 'data_gb': responses.nbytes / 1e9,\n"
        "    'peak_before_gb': before, 'cpu_s': time.process_time() - start}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return {"problem": f"30,172 voxels, 11,000 TRs, {features:,} features, 2 penalties, 2 folds", **found}


def features(windows: int = 12) -> dict[str, Any]:
    """Causal windows of a speech model: a loop over windows as published, and ours."""
    import torch
    from transformers import AutoModel, Wav2Vec2Config, Wav2Vec2Model

    from bit_speech import StoryFeatureExtractor
    from bit_speech.evaluation.story_features import can_share, window_features
    from bit_speech.simulation.story_cohort import speak_tones

    torch.set_num_threads(1)
    speech = Path("runs/benchmarks/wav2vec2_brain/speech_body")
    layered = {"feat_extract_norm": "layer", "do_stable_layer_norm": False}
    torch.manual_seed(0)
    models = [
        (
            "base size, layer norm between convolutions",
            Wav2Vec2Model(Wav2Vec2Config(**layered)),
            (2, 5, 7, 8),
            windows // 3,
        ),
        ("base size, group norm (the published models)", Wav2Vec2Model(Wav2Vec2Config()), (2, 5, 7, 8), windows // 3),
    ]
    if (speech / "config.json").exists():
        models.insert(0, ("small speech model, 4 layers", AutoModel.from_pretrained(speech), (1, 2, 3, 4), 4 * windows))
    audio = np.resize(speak_tones("we can go home now and see what the dog is up to"), 16_000 * 30)
    audio = (audio - audio.mean()) / audio.std()
    rows = []
    for name, model, layers, count in models:
        model.eval()
        for normalization in ("none", "clip"):
            extractor = StoryFeatureExtractor(normalization=normalization)
            ends = extractor.window_ends(len(audio))
            ends = ends[ends >= round(16.1 * 16_000)][:count]
            story = audio[: ends[-1]]

            def loop(model: Any = model, extractor: Any = extractor, ends: Any = ends, story: Any = story) -> list:
                found = []
                for window in extractor.windows(story, ends):
                    with torch.no_grad():
                        hidden = model(torch.from_numpy(window)[None], output_hidden_states=True).hidden_states
                    found.append([layer[0, -1].numpy() for layer in hidden])
                return found

            shared = can_share(model, extractor)
            if normalization == "none" and not shared:
                continue
            slow, expected = clock(loop)
            fast, (found, _) = clock(
                lambda model=model, extractor=extractor, story=story, layers=layers: window_features(
                    model, story, extractor, layers, batch_size=4, from_s=16.1
                )
            )
            difference = max(
                float(np.abs(found[layer] - np.stack([row[layer] for row in expected])).max()) for layer in layers
            )
            rows.append({
                "model": name, "normalization": normalization, "convolutions_shared": shared, "layers": list(layers),
                "windows": len(ends), "loop_s_per_window": slow / len(ends), "ours_s_per_window": fast / len(ends),
                "loop_real_time_factor": 10 * slow / len(ends), "ours_real_time_factor": 10 * fast / len(ends),
                "largest_difference": difference,
            })  # fmt: skip
    return {
        "problem": "windows of 16.1 s every 0.1 s; 10 minutes are 6,000 of them, measured on some full ones",
        "rows": rows,
        "stages": stages(models[-1][1], audio[: round(16.1 * 16_000)]),
        "reuse": {"model": models[0][0], "differences": reuse(models[0][1], audio[: round(16.2 * 16_000)])},
    }


def stages(model: Any, window: np.ndarray) -> dict[str, float]:
    """CPU seconds of each stage of one window, and how many layers alone would take a fifth of the whole."""
    import torch

    values = torch.from_numpy(window.astype(np.float32))[None]
    first = model.feature_extractor.conv_layers[0]
    with torch.no_grad():
        model(values)
        frames = model.feature_extractor(values).transpose(1, 2)
        hidden = model.feature_projection(frames)[0]
        found = {
            "loop": clock(lambda: model(values))[0],
            "convolutions": clock(lambda: model.feature_extractor(values))[0],
            "first_convolution": clock(lambda: first.conv(values[:, None]))[0],
            "positions": clock(lambda: model.encoder.pos_conv_embed(hidden))[0],
            "layer": clock(lambda: [layer(hidden) for layer in model.encoder.layers])[0] / len(model.encoder.layers),
        }
    return {**found, "layers_in_a_fifth_of_the_loop": found["loop"] / 5 / found["layer"]}


def reuse(model: Any, audio: np.ndarray) -> dict[str, float]:
    """Largest change of a feature if a window took frames from the window 0.1 s before it, stage by stage.

    Only frames that both windows hold are compared, and none within 64 of a window's ends, whose neighbours differ.
    """
    import torch

    step, edge = 1600 // 320, 64
    windows = [audio[:-1600], audio[1600:]]
    windows = [torch.from_numpy(((w - w.mean()) / np.sqrt(w.var() + 1e-7)).astype(np.float32))[None] for w in windows]
    with torch.no_grad():
        hidden = [model(window, output_hidden_states=True).hidden_states for window in windows]
        frames = [model.feature_extractor(window).transpose(1, 2) for window in windows]

    def change(before: Any, after: Any) -> float:
        return float((before[0, step:] - after[0, :-step])[edge:-edge].abs().max())

    layers = {f"layer {index}": change(*pair) for index, pair in enumerate(zip(*hidden)) if index}
    return {"convolutions": change(*frames), **layers}


def real(folder: str) -> dict[str, Any]:
    """Real BOLD of unheard stories from their words, with controls."""
    import shutil

    from examples.encode_text import main as encode

    output = Path("runs/benchmarks/encoding_text")
    config = "examples/configs/encode_text_uts03.yaml"
    result = encode(["--config", config, "--runs", folder, "--output_dir", str(output)])
    shutil.copy(output / "encoding.png", RESULTS / "encoding_text.png")
    kept = ("participant", "stories", "trs", "components", "features", "scores")
    return {name: result[name] for name in kept}


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS[:-1]))
    parser.add_argument("--real", help="folder of <participant>_<split>_<story>.npz")
    parser.add_argument("--features", type=int, default=1024, help="features of the memory part")
    arguments = parser.parse_args()
    if "real" in arguments.parts and arguments.real is None:
        parser.error("--parts real needs --real FOLDER")
    for name in arguments.parts:
        work = {
            "equality": equality,
            "ceiling": ceiling,
            "speed": speed,
            "memory": lambda: memory(arguments.features),
            "features": features,
            "real": lambda: real(arguments.real),
        }[name]
        seconds, found = clock(work)
        path = RESULTS / "encoding.json"
        parts = json.loads(path.read_text())["parts"] if path.exists() else {}
        parts[name] = {**found, "part_cpu_s": seconds}
        save_result("encoding", {"command": "python -m benchmarks.encoding", "parts": parts})
        print(name, json.dumps({k: v for k, v in found.items() if k != "scores"}, indent=1), flush=True)


if __name__ == "__main__":
    main()
