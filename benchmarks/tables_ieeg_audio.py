"""The sections of docs/benchmarks.md on iEEG and sound."""

from __future__ import annotations

from typing import Any

_NAMES = {
    "main": "log-mel",
    "ideal": "idealised speech features",
    "turned": "log-mel, other tuning for the task",
    "linear": "log-mel, linear encoder",
}
# Mean relative ranks of arXiv 2512.15830, wav2vec 2.0.
_PAPER = {"zero_shot_ambient": 0.149, "zero_shot_clean_in_room": 0.382, "zero_shot_clean": 0.498}


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _machine(result: dict[str, Any]) -> str:
    machine = result["machine"]
    versions = machine["versions"]
    return f"{machine['processor']}, {machine['cores']} cores, torch {versions['torch']}, {machine['date']}, commit {machine['commit']}."  # fmt: skip


def _rank(row: dict[str, Any]) -> str:
    value, low, high = row["rank"]
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _test(test: dict[str, Any]) -> str:
    return f"{test['difference']:+.3f}, p {test['p_value']:.2g}, better in {test['wins']} of {test['cells']} cells"


def ieeg_audio(result: dict[str, Any]) -> str:
    """Minutes to days on simulated patients."""
    text = "## Minutes to days: iEEG finds the sound that was heard, simulated patients\n\n"
    text += (
        f"`{result['command']}`: mean relative rank (0 perfect, 0.5 chance) with an interval from resampling patients and seeds. Pretraining "
        f"on {60 * result['hours']:.0f} minutes of ambient sound, the task has {result['task_minutes']:.0f} minutes for training; other files "
        f"for testing. {result['cpu_minutes']:.0f} core minutes. {_machine(result)}\n\n"
    )
    header = ["target", "cells", "task only", "pretrained + finetuned", "paired test"]
    text += _table(
        header,
        [
            [_NAMES[name], str(row["finetuned"]["cells"]), _rank(row["task_only"]), _rank(row["finetuned"]), _test(result["tests"][name])]
            for name, row in result["rows"].items()
        ],
    )  # fmt: skip
    text += "\nPretrained and not finetuned. The paper's own numbers (three patients, about 100 h) beside ours:\n\n"
    header = ["target", "ambient", "speech windows", "same day", "other days", "task, room's microphone", "task, clean"]
    header += ["channels shuffled", "time shifted"]
    order = ["zero_shot_ambient", "ambient_speech", "ambient_same_day", "ambient_cross_day", "zero_shot_clean_in_room"]
    order += ["zero_shot_clean", "channels_shuffled", "time_shifted"]
    rows = [[_NAMES[name], *(f"{row[key]['rank'][0]:.3f}" for key in order)] for name, row in result["rows"].items()]
    rows.append(["the paper", *(f"{_PAPER[key]:.3f}" if key in _PAPER else "-" for key in order)])
    text += _table(header, rows)
    first = next(iter(result["rows"].values()))
    text += (
        f"\nCandidates: {first['zero_shot_ambient']['num_candidates']:.0f} for ambient sound, {first['finetuned']['num_candidates']:.0f} for "
        f"the task. Top-10 of the task after finetuning: "
        + "; ".join(f"{_NAMES[name]} {100 * row['finetuned']['top_10']:.0f} %" for name, row in result["rows"].items())
        + f" (chance {100 * first['finetuned']['chance_top_10']:.0f} %).\n"
    )
    if "sizes" in result:
        text += "\nHours of pretraining, the same number of updates:\n\n"
        hours = next(iter(result["sizes"].values()))["hours"]
        rows = [
            [name.replace("_", " "), str(row["cells"]), *(f"{value:.3f}" for value in row["rank"]),
             f"{row['slope'][0]:+.3f} [{row['slope'][1]:+.3f}, {row['slope'][2]:+.3f}]", f"{row['r2']:.2f}"]
            for name, row in result["sizes"].items()
        ]  # fmt: skip
        text += _table(["scored on", "cells", *(f"{60 * value:.0f} min" for value in hours), "change for ten times the hours", "r2 of the line"], rows)  # fmt: skip
    if "drift" in result:
        text += "\nDrift: the last day is trained on by nobody.\n\n"
        rows = [
            [name.replace("_", " "), _rank(row["known_days"]), _rank(row["new_day"]), _test(row["test"]) if "test" in row else "-",
             f"{row['date_r']:.2f}"]
            for name, row in result["drift"].items()
        ]  # fmt: skip
        text += _table(
            ["against drift", "known days", "new day", "new day, paired with nothing", "date from the vectors, r"], rows
        )
        text += f"\nDate from the audio features: r {result['audio_date_r']:.2f}.\n"
    if "several" in result:
        several = result["several"]
        rows = [[name.replace("_", " "), _rank(several[name]), _test(several[f"test_{name}"]) if f"test_{name}" in several else "-"]
                for name in ("together", "alone", "alone_longer")]  # fmt: skip
        text += "\nSeveral patients in one model; alone with the same updates on the patient, longer with the same updates in all:\n\n"
        text += _table(["", "ambient", "together minus this"], rows)
    if "targets" in result:
        rows = [
            [name.replace("log_mel_", "log-mel, ").replace("ideal_", "idealised speech, ").replace("_", " "), _rank(row["joint"]),
             _rank(row["alone"]), _test(row["test"])]
            for name, row in result["targets"].items()
        ]  # fmt: skip
        text += (
            "\nSeveral targets in one loss, spectrum and idealised speech features, pretrained and not finetuned:\n\n"
        )
        text += _table(["found, tested on", "both in one loss", "alone", "both minus alone"], rows)
    if "regions" in result:
        regions = result["regions"]
        names = {"own": "a read-in for each patient", "place": "by place", "place_and_region": "by place and region"}
        rows = [[text_, _rank(regions[name]), _test(regions[f"test_{name}"]) if f"test_{name}" in regions else "-"]
                for name, text_ in names.items()]  # fmt: skip
        text += "\nAll patients in one model; four of five regions say whether their channels hear anything, as anatomy might:\n\n"
        text += _table(["read-in", "ambient", "place and region minus this"], rows)
    if "joint" in result:
        joint = result["joint"]
        text += f"\nAmbient and clean sound in one training: ambient {_rank(joint['ambient'])}, task {_rank(joint['clean'])}"
        text += f"; against pretraining and finetuning {_test(joint['test'])}.\n" if "test" in joint else ".\n"
    return text


def ieeg_preprocessing(result: dict[str, Any]) -> str:
    """Speed of filtering and of training."""
    names = {
        "low": "0.05-50 Hz to 40 Hz, streamed",
        "gamma": "high gamma envelope, streamed",
        "plain": "MNE, in memory",
    }
    rows = [
        [names[name], f"{row['wall_s']:.1f}", f"{row['cpu_s']:.1f}", f"{row['day_wall_min']:.1f}", f"{row['day_cpu_min']:.1f}",
         f"{row['peak_memory_gb']:.2f}"]
        for name, row in result["rows"].items()
    ]  # fmt: skip
    text = (
        f"## Filtering iEEG\n\n`{result['command']}`: {result['recording_s']:.0f} s of {result['channels']} channels at {result['rate_hz']} Hz, "
        f"EDF on disk; {result['threads']} threads, load average {result['load_average']:.1f}; a day is extrapolated. {_machine(result)}\n\n"
    )
    text += _table(["", "s (wall)", "s (CPU)", "a day, min (wall)", "a day, min (CPU)", "peak memory GB"], rows)
    if "training" in result:
        rows = [
            [name, f"{row['windows_per_s']:.1f}", f"{row['plain_windows_per_s']:.1f}", f"{row['ratio']:.2f}"]
            for name, row in result["training"].items()
        ]
        text += "\nTraining steps, batch 32:\n\n" + _table(["preset", "windows/s", "plain loop", "ratio"], rows)
    return text


def ieeg_preprocessing_day(result: dict[str, Any]) -> str:
    """A whole day, measured."""
    row = result["rows"]["low"]
    return (
        f"`{result['command']} --hours 24`: {result['recording_s'] / 3600:.1f} h measured in one piece: {row['wall_s'] / 60:.1f} minutes (wall), "
        f"{row['cpu_s'] / 60:.1f} (CPU), peak memory {row['peak_memory_gb']:.2f} GB. {_machine(result)}\n"
    )
