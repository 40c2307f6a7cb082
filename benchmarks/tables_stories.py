"""The sections of docs/benchmarks.md on people who listen to stories."""

from __future__ import annotations

from typing import Any


def brain_tuning(result: dict[str, Any]) -> str:
    """Brain-tuning of a small speech model on simulated cohorts."""
    from benchmarks.tables import machine_line, percent, table  # which imports this module

    def shown(values: list[float] | None) -> str:
        return "-" if values is None else f"{values[0]:.3f} [{values[1]:.3f}, {values[2]:.3f}]"

    counts = sorted(
        int(key.split("_")[2]) for key in result["rows"][0] if key.startswith("held_out_") and key[9:].isdigit()
    )
    rows = [
        [
            row["condition"].replace("_", " "), ", ".join(map(str, row["seeds"])), f"{row['minutes_of_tuning']:.0f}",
            *[f"{row[f'held_out_{count}'][0]:.3f}" for count in counts],
            shown(row.get("held_out_gain_over_pretrained")), shown(row.get("tuned_gain_over_pretrained")),
            shown(row.get("held_out_gain_over_single")), f"{row['share_of_ceiling']:.2f}",
            "-" if result["data_to_match_pretrained"].get(row["condition"]) is None
            else f"{result['data_to_match_pretrained'][row['condition']]:.2f}",
        ]
        for row in result["rows"]
    ]  # fmt: skip
    header = ["tuned to", "cohorts", "minutes of BOLD"] + [f"r, {count} stories" for count in counts]
    header += [
        "gain over pretrained",
        "for tuned participants",
        "gain over single",
        "share of ceiling",
        "data to match",
    ]
    recipe = result["recipe"]
    speech = [
        [
            row["condition"],
            percent(row["speech"]["cer"]),
            ", ".join(f"{value:.3f}" for value in row["speech"]["sounds_micro_f1"]),
            ", ".join(f"{value:.3f}" for value in row["speech"].get("types_macro_f1", [])) or "-",
        ]
        for row in result["rows"]
        if "speech" in row
    ]
    speech_header = [
        "tuned to",
        "CER with the untouched head",
        "micro F1 of sounds, layers 0 to 4",
        "macro F1 of types of sentence",
    ]
    return (
        "## Brain-tuning on simulated cohorts\n\n"
        f"`{result['command']}`. Encoding models of three held-out participants of each cohort, fitted to a number of stories that no tuning saw: "
        "correlation with two more stories, mean over voxels and the two upper layers. Gains with most stories, 95 % intervals over participants of all cohorts. "
        f"Every condition: {recipe['updates']} updates of {recipe['batch']} TRs, head started at a ridge regression. Data to match: share of the encoding stories that "
        "reach what the pretrained model reaches with all of them. Simulated participants say how methods compare on known truth, nothing about brains. "
        f"{machine_line(result)}\n"
        + table(header, rows)
        + "\n![Held-out participants](../benchmarks/results/brain_tuning.png)\n\n"
        "What tuning did to speech: spelling of 40 held-out synthesized sentences, and linear probes of the sounds in them.\n\n"
        + table(speech_header, speech)
    )


def encoding(result: dict[str, Any]) -> str:
    """Ridge, noise ceilings, features of stories, and real BOLD."""
    from benchmarks.tables import machine_line, percent, table  # which imports this module

    parts, lines = result["parts"], []
    if "equality" in parts:
        found = parts["equality"]
        rows = [
            [
                name,
                *[f"{found[name][key]:.1e}" for key in ("scikit_learn_weights", "himalaya_weights")],
                percent(found[name]["himalaya_same_penalties"]),
            ]
            for name in ("double", "single")
        ]
        lines.append(
            f"Largest difference of weights ({found['problem']}).\n\n"
            + table(["precision", "from scikit-learn", "from himalaya", "same penalties as himalaya"], rows)
        )
    if "ceiling" in parts:
        rows = [[f"{row['snr']}", f"{row['found']:.3f}", f"{row['theory']:.3f}"] for row in parts["ceiling"]["rows"]]
        lines.append(
            f"Noise ceiling ({parts['ceiling']['problem']}).\n\n"
            + table(["signal to noise", "estimated", "theory"], rows)
        )
    if "speed" in parts:
        found = parts["speed"]
        names = {
            "ours_s": "all voxels together", "himalaya_s": "himalaya", "loop_sharing_decompositions_s": "loop over voxels, decompositions shared",
            "loop_scikit_learn_s": "loop over voxels, penalties and folds, scikit-learn",
        }  # fmt: skip
        rows = [[text, f"{found[key]:,.0f}", f"{found[key] / found['ours_s']:,.1f}"] for key, text in names.items()]
        lines.append(
            f"Ridge ({found['problem']}; measured: {found['measured']}).\n\n"
            + table(["how", "CPU s", "times ours"], rows)
        )
    if "memory" in parts:
        found = parts["memory"]
        lines.append(
            f"Memory: {found['problem']}: peak {found['peak_gb']:.2f} GB of which {found['data_gb']:.2f} GB are the responses; {found['cpu_s']:.0f} CPU s.\n"
        )
    if "features" in parts:
        rows = [
            [
                row["model"], row["normalization"], "yes" if row["convolutions_shared"] else "no", f"{row['loop_real_time_factor']:.1f}",
                f"{row['ours_real_time_factor']:.1f}", f"{row['loop_s_per_window'] / row['ours_s_per_window']:.2f}", f"{row['largest_difference']:.0e}",
            ]
            for row in parts["features"]["rows"]
        ]  # fmt: skip
        lines.append(
            f"Features of a story ({parts['features']['problem']}). Real-time factor: CPU seconds per second of story. A window's own mean and deviation, or group norm over its "
            "time, forbid sharing the convolutions after the first; the transformer attends over a window from its first layer on, so its work, most of the whole, cannot be shared "
            "by any exact method. What is saved beyond convolutions are layers above the last one asked for, and all but one frame of that one.\n\n"
            + table(
                [
                    "model",
                    "normalised per",
                    "convolutions shared",
                    "loop",
                    "ours",
                    "times faster",
                    "largest difference",
                ],
                rows,
            )
        )
    if "stages" in parts.get("features", {}):
        found, changes = parts["features"]["stages"], parts["features"]["reuse"]
        names = {
            "loop": "the whole", "convolutions": "convolutions", "first_convolution": "the first of them", "positions": "positions",
            "layer": "a layer of the transformer",
        }  # fmt: skip
        lines.append(
            "Why no exact method is five times faster: one window of the base model, CPU seconds.\n\n"
            + table(["stage", "s"], [[text, f"{found[key]:.2f}"] for key, text in names.items()])
            + f"\nA fifth of the whole is {found['layers_in_a_fifth_of_the_loop']:.1f} layers, and layers up to 8 or 12 are asked for. Frames of the window 0.1 s before "
            f"cannot stand in for a window's own ({changes['model']}), largest change: "
            + ", ".join(f"{name} {value:.1g}" for name, value in changes["differences"].items())
            + ".\n"
        )
    if "real" in parts:
        found = parts["real"]
        rows = [
            [
                name.replace("_", " "), "{:.4f} [{:.4f}, {:.4f}]".format(*score["mean_correlation"]), str(score["significant"]),
                "-" if "words_are_better_by" not in score else "{:.4f} [{:.4f}, {:.4f}]".format(*score["words_are_better_by"]),
            ]
            for name, score in found["scores"].items()
        ]  # fmt: skip
        best = ", ".join(f"{value:.3f}" for value in found["scores"]["words"]["best"].values())
        lines.append(
            f"Real BOLD: participant {found['participant']} of ds003020, {found['stories']} stories ({found['trs']:,} TRs), {found['components']} principal components, each story predicted by "
            f"models of the others from {found['features']} text features with delays of 1 to 4 TRs (`python -m benchmarks.encoding --parts real --real FOLDER`). Significant: components "
            f"at a false discovery rate of 5 %, permuted blocks of 10 TRs. Best components of the word model: {best}.\n\n"
            + table(["features", "mean correlation", "significant", "word model is better by"], rows)
            + "\n![Held-out correlations and controls](../benchmarks/results/encoding_text.png)\n"
        )
    return f"## Encoding models\n\n`{result['command']}`. One thread. {machine_line(result)}\n" + "\n".join(lines)
