"""Hold the simulator beside a real trial: counts, time scales, correlations.

    python benchmarks/simulator_statistics.py --output_dir benchmarks/results

The real trial (participant T12, area 6v, CC0) gives one number for each statistic; the simulator gives a range over
participants, each with as many electrodes and bins as the real trial. Writes `simulator_statistics.json` and
`simulator_statistics.png`.
"""

from __future__ import annotations

import argparse
import io
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from bit_speech.files import write_bytes, write_json
from bit_speech.simulation import PRESETS, SIMULATOR_VERSION, SimulatedParticipant

REAL_TRIAL = Path(__file__).parents[1] / "tests" / "fixtures" / "t12_neural_trial" / "figure1_neural_data.npy"
LAGS_BINS = (1, 2, 3, 5, 10, 20, 50)
MAX_COUNT = 6


def read_real_trial(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the real trial and undo what was done to it.

    Args:
        path (`Path`): array of shape `(256, T)`: z-scored log1p crossings and log power of two arrays of 64 electrodes.

    Returns:
        `np.ndarray` of shape `(T, 128)`: counts of threshold crossings, recovered from the spacing of the levels.
        `np.ndarray` of shape `(T, 128)`: log spike-band power, z-scored.

    Raises:
        ValueError: when the levels are not those of log1p of counts.
    """
    values = np.load(path, allow_pickle=False).astype(np.float64)
    crossings = np.concatenate([values[0:64], values[128:192]])
    power = np.concatenate([values[64:128], values[192:256]])
    counts = np.empty_like(crossings)
    for row, channel in enumerate(crossings):
        levels = np.unique(channel)
        levels = levels[np.append(True, np.diff(levels) > 1e-4)]
        exact = np.expm1((channel - levels[0]) / ((levels[1] - levels[0]) / np.log(2)))
        counts[row] = np.rint(exact)
        if np.abs(exact - counts[row]).max() > 0.05:
            raise ValueError(f"channel {row} of {path} does not hold log1p of counts")
    return counts.T, power.T


def simulate_like(seed: int, num_electrodes: int, num_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Record a simulated participant for as long as the real trial.

    Args:
        seed (`int`): the participant.
        num_electrodes (`int`): electrodes.
        num_bins (`int`): bins.

    Returns:
        `np.ndarray` of shape `(T, E)`: counts.
        `np.ndarray` of shape `(T, E)`: log power.
    """
    config = replace(
        PRESETS["t12-like"], num_electrodes=num_electrodes, num_sessions=1, train_sentences=200, min_words=8,
        dead_electrode_share=0.0,
    )  # fmt: skip
    participant = SimulatedParticipant(config, seed=seed)
    pieces, total = [], 0
    for trial in participant.trials("train"):
        pieces.append(trial.features)
        total += trial.num_bins
        if total >= num_bins:
            break
    features = np.concatenate(pieces)[:num_bins].astype(np.float64)
    return features[:, :num_electrodes], np.log(features[:, num_electrodes:])


def autocorrelation(values: np.ndarray) -> list[float]:
    """Average autocorrelation over channels at `LAGS_BINS`.

    Args:
        values (`np.ndarray` of shape `(T, E)`): any unit.

    Returns:
        `list[float]`: one per lag.
    """
    z = (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-9)
    return [float((z[:-lag] * z[lag:]).mean()) for lag in LAGS_BINS]


def statistics(counts: np.ndarray, log_power: np.ndarray) -> dict[str, list[float]]:
    """Compute everything that is compared.

    Args:
        counts (`np.ndarray` of shape `(T, E)`): threshold crossings.
        log_power (`np.ndarray` of shape `(T, E)`): log spike-band power.

    Returns:
        `dict[str, list[float]]`: name -> numbers.
    """
    active = counts.std(axis=0) > 0
    counts, log_power = counts[:, active], log_power[:, active]
    rates = counts.mean(axis=0)
    upper = np.triu_indices(counts.shape[1], 1)
    result = {
        "share_of_bins_by_count": [float((counts == count).mean()) for count in range(MAX_COUNT)],
        "mean_count_quantiles_10_50_90": np.quantile(rates, [0.1, 0.5, 0.9]).tolist(),
        "fano_quantiles_10_50_90": np.quantile(counts.var(axis=0) / rates, [0.1, 0.5, 0.9]).tolist(),
        "crossings_autocorrelation": autocorrelation(counts),
        "power_autocorrelation": autocorrelation(log_power),
    }
    z = (log_power - log_power.mean(axis=0)) / log_power.std(axis=0)
    result["log_power_skew_quantiles_10_50_90"] = np.quantile((z**3).mean(axis=0), [0.1, 0.5, 0.9]).tolist()
    same = [np.corrcoef(a, b)[0, 1] for a, b in zip(np.log1p(counts).T, log_power.T, strict=True)]
    result["crossings_power_correlation_quantiles_10_50_90"] = np.quantile(same, [0.1, 0.5, 0.9]).tolist()
    result["crossings_power_correlation_mean"] = [float(np.mean(same))]
    for name, values in (("crossings", np.log1p(counts)), ("power", log_power)):
        correlation = np.corrcoef(values.T)
        result[f"{name}_correlation_mean_and_sd"] = [float(correlation[upper].mean()), float(correlation[upper].std())]
        eigenvalues = np.linalg.eigvalsh(correlation)[::-1]
        result[f"{name}_correlation_eigenvalues_1_to_10"] = eigenvalues[:10].tolist()
        result[f"{name}_participation_ratio"] = [float(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())]
    return result


def draw(path: Path, real: dict, simulated: dict, examples: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Draw real and simulated side by side.

    Args:
        path (`Path`): PNG to write.
        real (`dict`): statistics of the real trial.
        simulated (`dict`): name -> `{"mean": [...], "sd": [...]}` over simulated participants.
        examples (`dict`): title -> (counts, log power) of one recording.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 4, figsize=(17, 7.5), layout="constrained")
    for axis, (title, (counts, _)) in zip(axes[0, :2], examples.items(), strict=True):
        axis.imshow(
            np.minimum(counts.T, 4),
            aspect="auto",
            cmap="Greys",
            interpolation="nearest",
            extent=(0, len(counts) * 0.02, counts.shape[1], 0),
        )
        axis.set(title=f"{title}: threshold crossings", xlabel="time (s)", ylabel="electrode")

    def pair(axis, name: str, x, title: str, xlabel: str, log: bool = False) -> None:
        axis.errorbar(
            x,
            simulated[name]["mean"],
            simulated[name]["sd"],
            fmt="o-",
            color="tab:orange",
            label="simulated (mean, sd)",
        )
        axis.plot(x, real[name], "ks--", markersize=4, label="real")
        axis.set(title=title, xlabel=xlabel)
        if log:
            axis.set_yscale("log")
        axis.legend(fontsize=8)

    pair(
        axes[0, 2],
        "share_of_bins_by_count",
        range(MAX_COUNT),
        "count distribution",
        "crossings per 20 ms bin",
        log=True,
    )
    pair(
        axes[0, 3],
        "crossings_autocorrelation",
        [lag * 20 for lag in LAGS_BINS],
        "autocorrelation of crossings",
        "lag (ms)",
    )
    axes[0, 3].set_xscale("log")
    pair(
        axes[1, 0], "power_autocorrelation", [lag * 20 for lag in LAGS_BINS], "autocorrelation of log power", "lag (ms)"
    )
    axes[1, 0].set_xscale("log")
    for axis, name in ((axes[1, 1], "crossings"), (axes[1, 2], "power")):
        pair(
            axis,
            f"{name}_correlation_eigenvalues_1_to_10",
            range(1, 11),
            f"eigenvalues of the {name} correlations",
            "number",
        )
    quantiles = [10, 50, 90]
    pair(
        axes[1, 3],
        "crossings_power_correlation_quantiles_10_50_90",
        quantiles,
        "crossings-power correlation, same electrode",
        "quantile of electrodes (%)",
    )
    picture = io.BytesIO()
    figure.savefig(picture, dpi=100, format="png")
    plt.close(figure)
    write_bytes(path, picture.getvalue())


def main() -> None:
    """Run the comparison from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real_trial", type=Path, default=REAL_TRIAL, help="the real T12 trial")
    parser.add_argument("--output_dir", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--num_participants", type=int, default=12, help="simulated participants")
    arguments = parser.parse_args()
    if not arguments.real_trial.exists():
        raise FileNotFoundError(f"{arguments.real_trial} does not exist: give the real trial with --real_trial")
    counts, log_power = read_real_trial(arguments.real_trial)
    real = statistics(counts, log_power)
    recordings = [simulate_like(seed, counts.shape[1], len(counts)) for seed in range(arguments.num_participants)]
    each = [statistics(*recording) for recording in recordings]
    simulated = {}
    for name in real:
        values = np.array([one[name] for one in each])
        simulated[name] = {"mean": values.mean(axis=0).tolist(), "sd": values.std(axis=0).tolist()}
        numbers = " ".join(f"{x:.3f}/{y:.3f}" for x, y in zip(real[name], simulated[name]["mean"], strict=True))
        print(f"{name} (real/simulated): {numbers}")
    result = {
        "command": "python benchmarks/simulator_statistics.py",
        "simulator_version": SIMULATOR_VERSION,
        "preset": "t12-like",
        "config": asdict(PRESETS["t12-like"]),
        "num_participants": arguments.num_participants,
        "lags_bins": LAGS_BINS,
        "real": real,
        "simulated": simulated,
    }
    write_json(arguments.output_dir / "simulator_statistics.json", result)
    examples = {"real (T12)": (counts, log_power), "simulated": recordings[0]}
    draw(arguments.output_dir / "simulator_statistics.png", real, simulated, examples)


if __name__ == "__main__":
    main()
