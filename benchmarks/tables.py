"""Write docs/benchmarks.md from the results on disk.

python -m benchmarks.tables
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import tables_ieeg_audio, tables_stories
from benchmarks.common import RESULTS
from bit_speech.files import write_text

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
HEAD = """\
# Benchmarks

Made by `python -m benchmarks.tables` from `benchmarks/results/*.json`; each section names the command that makes its numbers again. Accuracy on
simulated participants says how systems compare on known truth, nothing about a person. Times are from shared machines: trust ratios and
CPU time before wall time.
"""


def table(header: list[str], rows: list[list[str]]) -> str:
    """Format a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def machine_line(result: dict[str, Any]) -> str:
    """Describe in one line where a result comes from."""
    machine = result["machine"]
    return f"{machine['processor']}, {machine['cores']} cores, torch {machine['versions']['torch']}, {machine['date']}, commit {machine['commit']}.\n"


def percent(value: float) -> str:
    """Format a share as per cent."""
    return f"{100 * value:.1f} %"


def interval(values: list[float]) -> str:
    """Format a ratio with its interval."""
    return f"{values[0]:.2f} [{values[1]:.2f}, {values[2]:.2f}]"


def encoders(result: dict[str, Any]) -> str:
    """Encoders side by side on simulated participants."""
    names = {
        "gru": "GRU baseline",
        "bit": "BIT from scratch",
        "bit_masked": "BIT, heavy time masking",
        "ideal_observer": "ideal observer",
    }
    rows = [
        [
            row["preset"], names[row["model"]], percent(row["per"]), ", ".join(percent(value) for value in row["per_by_seed"]),
            interval(row["ratio_to_gru"]) if "ratio_to_gru" in row else "-",
            interval(row["ratio_to_ideal_observer"]) if "ratio_to_ideal_observer" in row else "-",
            f"{row['parameters'] / 1e6:.2f} M" if "parameters" in row else "-",
            f"{row['training_bins'] / 1e6:.2f} M" if "training_bins" in row else "-",
            f"{row['training_bins_per_s']:,.0f}" if "training_bins_per_s" in row else "-",
            f"{row['latency_ms_median']:.1f} / {row['latency_ms_p95']:.1f}" if "latency_ms_median" in row else "-",
        ]
        for row in result["rows"]
    ]  # fmt: skip
    return (
        "## Encoders on simulated participants\n\n"
        f"`{result['command']}`. {result['what']}. {machine_line(result)}\n"
        + table(
            [
                "preset",
                "model",
                "PER",
                "by seed",
                "ratio to GRU",
                "ratio to ideal",
                "parameters",
                "training bins",
                "bins/s",
                "latency ms (p50 / p95)",
            ],
            rows,
        )
        + "\n"
        + result.get("note", "")
    )


def demo(result: dict[str, Any]) -> str:
    """The demonstration."""
    rows = [
        [
            name,
            *(
                f"{percent(result[key][rate]['rate'])} [{percent(result[key][rate]['low'])}, {percent(result[key][rate]['high'])}]"
                for rate in ("per", "wer")
            ),
        ]
        for key, name in (("bit", "BIT"), ("ideal_observer", "ideal observer"))
    ]
    return (
        "## The demonstration\n\n"
        f"`make demo`: {result['bit']['wer']['num_sentences']} held-out sentences, {result['vocabulary_words']:,} words, "
        f"{result['seconds']['total']:.0f} s, peak memory {result['peak_memory_gb']:.1f} GB. {machine_line(result)}\n"
        + table(["", "PER", "WER"], rows)
    )


def first_sentence(result: dict[str, Any]) -> str:
    """How long a newcomer waits."""
    names = {
        "command": "`bit-speech decode --model sim-ctc --simulated 1`",
        "python": "the README's lines of Python",
        "demo": "`bit-speech demo`, its first sentence",
    }
    rows = [
        [names[way], *(f"{states[state][key]:.1f}" for state in ("cold", "warm") for key in ("wall_s", "processor_s"))]
        for way, states in result["ways"].items()
    ]
    return (
        "## The first sentence\n\n"
        f"Seconds from the start of a fresh process to the first decoded sentence of the model in the box, median of {result['repeats']}. Cold: "
        "numba has compiled nothing yet, as right after installation; warm: it has. Processor seconds of the demonstration hold a little of what "
        f"follows. Load of the machine at the end: {result['load']:.1f}.\n\n"
        + table(["", "cold, s", "processor, s", "warm, s", "processor, s"], rows)
        + machine_line(result)
        + "\nAgain: `python -m benchmarks.first_sentence`.\n"
    )


def conversion(result: dict[str, Any]) -> str:
    """Converting and reading back."""
    read = result["read"]["reader_padded_batches"]
    rows = [
        ["convert", *(f"{result['convert'][key]:,.0f}" for key in ("mb_per_s", "mb_per_cpu_s", "peak_memory_mb"))],
        [
            "first opening",
            *(f"{result['read']['first_opening'][key]:,.0f}" for key in ("mb_per_s", "mb_per_cpu_s", "peak_memory_mb")),
        ],
        ["read padded batches", *(f"{read[key]:,.0f}" for key in ("mb_per_s", "mb_per_cpu_s", "peak_memory_mb"))],
    ]
    return (
        "## Conversion\n\n"
        f"`python -m benchmarks.conversion`: {result['what']}, {result['input']['megabytes']:,.0f} MB in {result['input']['trials']:,} trials; load average "
        f"{result['load_average_of_the_machine']:.1f} on {result['machine']['cores']} cores while it ran. {machine_line(result)}\n"
        + table(["step", "MB/s (wall)", "MB per CPU second", "peak memory MB"], rows)
    )


def decoding(result: dict[str, Any]) -> str:
    """The word decoder beside its peers."""
    names = {"ours": "bit-speech", "kaldi": "kaldi-decoder (static WFST)", "flashlight": "flashlight-text + KenLM", "flashlight-spelled": "flashlight-text + KenLM, SIL required"}  # fmt: skip
    rows, gaps = [], []
    for name, found in result["sets"].items():
        for decoder, one in found["decoders"].items():
            for row in one["beams"]:
                rows.append([
                    name, names[decoder], str(row["beam"]), f"{percent(row['wer'])} [{percent(row['wer_low'])}, {percent(row['wer_high'])}]",
                    f"{row['cpu_us_per_frame']:.0f}", f"{row['cpu_us_per_frame_first_pass']:.0f}", f"{one['peak_rss_mb']:.0f}", f"{one['load_cpu_s']:.1f}",
                ])  # fmt: skip
        for decoder, (gap, low, high) in found["differences"].items():
            gaps.append(
                f"{name}, best beam against {names[decoder]}'s best: {100 * gap:+.2f} points [{100 * low:+.2f}, {100 * high:+.2f}]"
            )
    graph = result.get("static_graph")
    built = (
        f" The static graph took {graph['build_cpu_s']:.0f} s and {graph['build_peak_mb']:.0f} MB to build."
        if graph
        else ""
    )
    stream, threads = result["stream"], result["threads"]
    memory = stream["peak_rss_mb_after_first_and_last_pass"]
    return (
        "## Word decoder\n\n"
        f"`{result.get('command', 'python -m benchmarks.decoding')}`: synthetic posteriors, {result['lexicon']['pronunciations']:,} pronunciations in a trie of "
        f"{result['trie_mb']:.1f} MB, {sum(result['language_model']['ngrams']):,} n-grams, one thread; every decoder's weights tuned by the same trials on "
        f"{result['tuned_on_sentences']} sentences that are not scored.{built} {machine_line(result)}\n"
        + table(
            [
                "posteriors",
                "decoder",
                "beam",
                "WER",
                "CPU µs per 80 ms frame",
                "in the first pass",
                "peak memory MB",
                "load CPU s",
            ],
            rows,
        )
        + "\n"
        + "".join(f"* {gap}\n" for gap in gaps)
        + f"\nStreaming, wall time: frame to partial text p50 {stream['frame_ms']['p50']:.2f} ms, p99 {stream['frame_ms']['p99']:.2f} ms; last frame to final text p50 "
        f"{stream['final_ms']['p50']:.2f} ms, p99 {stream['final_ms']['p99']:.2f} ms. {stream['hours']:g} simulated hours: {stream['cpu_us_per_frame']:.0f} µs per frame, "
        f"peak memory {memory[0]:.0f} MB after the first pass over the data, {memory[-1]:.0f} MB at the end. Two threads: {threads['speed_up']:.2f} times one.\n\n"
        "![WER against cost](../benchmarks/results/decoding.png)\n"
    )


def pretraining(result: dict[str, Any]) -> str:
    """Pretrained encoders beside encoders from scratch, with the controls."""
    names = {
        "scratch": "from scratch (BIT-TFS)",
        "all": "humans, monkeys and the target (BIT-All)",
        "human": "humans and the target (BIT-Human)",
        "human_longer": "the same, pretrained four times as long",
        "monkey": "monkeys and the target",
        "shuffled": "BIT-All, bins of every trial shuffled",
        "matched": "BIT-All cut to the hours of BIT-Human",
        "same_participant": "the target alone, as many hours as BIT-All",
        "others": "humans and monkeys, not the target",
        "all_new_read_in": "BIT-All, the target's read-in drawn anew",
        "all_crossings": "BIT-All, threshold crossings only",
        "scratch_masked": "from scratch, half of the patches hidden",
        "cross_task": "labelled attempted speech of the target",
    }

    def percentages(values: list[float], sign: str = "") -> str:
        return f"{100 * values[0]:{sign}.1f} % [{100 * values[1]:{sign}.1f}, {100 * values[2]:{sign}.1f}]"

    rows = [
        [
            row["task"], names[row["condition"]], str(row["trials"]), ", ".join(map(str, row["seeds"])),
            percentages(row["per"]), ", ".join(percent(value) for value in row["per_by_seed"]),
            percentages(row["change"], "+") if "change" in row else "-",
            percentages(row["scratch_of_these"]) if "change" in row else "-",
            f"{row['pretraining_hours']:.1f}",
        ]
        for row in result["rows"]
    ]  # fmt: skip
    match = result["labelled_trials_to_match"]["trials"]
    return (
        "## Pretraining on simulated participants\n\n"
        f"`{result['command']}`. {result['what']}; simulator version {', '.join(result['simulator'])}. The change is relative to "
        "training from scratch on the same participants, both drawn again together; what each row means: "
        f"[pretraining experiments](pretraining_experiments.md). {machine_line(result)}\n"
        + table(
            [
                "task",
                "pretrained on",
                "labelled trials",
                "seeds",
                "PER",
                "by seed",
                "change",
                "scratch, same seeds",
                "hours",
            ],
            rows,
        )
        + "\nLabelled trials with which BIT-All reaches what training from scratch reaches with 1,000: "
        + (f"{match}.\n" if match else "not within the measured range.\n")
    )


def corpus_reading(result: dict[str, Any]) -> str:
    """Reading the pretraining corpus."""
    rows = [
        [f"memory-mapped {name}", f"{store['stored_mb']:,.0f}", *(f"{store[key]:.2f}" for key in keys), f"{store['first_epoch_after_dropping_the_cache']['delivered_gb_per_s']:.2f}"]
        for keys in [("delivered_gb_per_cpu_s", "delivered_gb_per_s", "stored_gb_per_cpu_s")]
        for name, store in result["stores"].items()
    ]  # fmt: skip
    stock = result["stock"]
    rows.append(["rows of `datasets`, float32", "-", f"{stock['delivered_gb_per_cpu_s']:.2f}", f"{stock['delivered_gb_per_s']:.2f}", f"{stock['stored_gb_per_cpu_s']:.2f}", "-"])  # fmt: skip
    return (
        "## Reading the pretraining corpus\n\n"
        f"`{result['command']}`: {result['what']}. {machine_line(result)}\n"
        + table(
            [
                "store",
                "MB",
                "delivered GB per CPU second",
                "delivered GB/s (wall)",
                "stored GB per CPU second",
                "GB/s (wall), cache dropped",
            ],
            rows,
        )
    )


def pretraining_throughput(result: dict[str, Any]) -> str:
    """Training speed of pretraining."""
    rows = [
        [
            name, str(measured["threads"]), f"{row['patches_per_second']:,.0f}", f"{row['patches_per_cpu_second']:,.0f}",
            f"{row['patches_per_second_beside_ours']:.2f}", f"{row['patches_per_cpu_second_beside_ours']:.2f}",
            percent(row["padding"]), f"{row['parameters'] / 1e6:.1f}",
            percent(row["model_flops_utilisation"]) if "model_flops_utilisation" in row else "-",
        ]
        for measured in result["results"] for name, row in measured["rows"].items()
    ]  # fmt: skip
    memory = max(measured["peak_memory"]["process"] for measured in result["results"])
    return (
        "## Training speed of pretraining\n\n"
        f"`{result['command']}`: patches (100 ms of signal) per second of whole training steps; medians of {result['results'][0]['rounds']} rounds, batch "
        f"{result['batch']}, {result['channels']} channels, lengths of {result['lengths']}; peak memory {memory:.1f} GB; load average "
        f"{result['load_average']:.1f} when it ended. {machine_line(result)}\n"
        + table(
            [
                "contender",
                "threads",
                "patches/s (wall)",
                "patches per CPU second",
                "ours is faster by (wall)",
                "(CPU time)",
                "padding",
                "M parameters",
                "model-FLOPs utilisation",
            ],
            rows,
        )
    )


def fusion(result: dict[str, Any]) -> str:
    """Fusion of ten simulated models."""

    def rate(wer: dict[str, Any]) -> str:
        return f"{percent(wer['rate'])} [{percent(wer['low'])}, {percent(wer['high'])}]"

    def points(row: dict[str, Any], other: str) -> str:
        values = [100 * row[other][key] for key in ("difference", "difference_low", "difference_high")]
        return f"{values[0]:+.2f} [{values[1]:+.2f}, {values[2]:+.2f}]" if any(values) else "-"

    singles = [row["wer"]["rate"] for row in result["rows"] if row["system"].startswith("model ")]
    rows = [["mean of the ten single models", percent(sum(singles) / len(singles)), "-", "-"]]
    rows += [
        [row["system"], rate(row["wer"]), points(row, "minus_vote"), points(row, "minus_rescored_vote")]
        for row in result["rows"]
        if not row["system"].startswith("model ")
    ]
    return (
        "## Fusion of several models\n\n"
        f"`{result['command']}`. {result['what']}; everything tuned on other sentences. Mergers write or choose without any reference; oracles know it. "
        f"{machine_line(result)}\n"
        + table(["system", "WER", "minus the vote, points", "minus the vote on rescored lists"], rows)
        + result.get("note", "")
    )


def wav2vec2_brain(result: dict[str, Any]) -> str:
    """A speech model listens to simulated participants."""
    names = {
        "full": "speech body, full fine-tuning, body delayed and at a tenth of the rate as published",
        "full_same_rate": "speech body, full fine-tuning, one rate for all",
        "frozen": "speech body, frozen",
        "scratch": "the same from scratch",
        "lora": "speech body, low-rank adapters",
        "bit": "BIT from scratch",
        "gru": "GRU baseline",
    }
    rows = []
    for row in result["rows"]:
        rates = [
            f"{percent(row[metric][0])} [{percent(row[metric][1])}, {percent(row[metric][2])}]"
            if metric in row
            else "-"
            for metric in ("cer", "wer", "cer_lm", "wer_lm")
        ]
        published = result["published_cer"].get(row["model"])
        change = [100 * value for value in row.get("cer_minus_scratch", [])]
        rows.append(
            [
                names[row["model"]], ", ".join(map(str, row["seeds"])), *rates,
                f"{change[0]:+.1f} [{change[1]:+.1f}, {change[2]:+.1f}]" if change else "-",
                percent(published) if published else "-",
                f"{row['parameters'] / 1e6:.2f} M ({row['trainable_parameters'] / 1e6:.2f} M)",
            ]
        )  # fmt: skip
    header = ["model", "seeds", "CER", "WER", "CER with LM", "WER with LM", "CER minus from scratch, points", "published CER (T12)",
              "parameters (learning)"]  # fmt: skip
    text = (
        "## A speech model listens to the cortex\n\n"
        f"`{result['command']}`. {result['what']}. {machine_line(result)}\n" + table(header, rows)
    )
    body = result.get("speech_body")
    if body:
        heard = body["held_out_cer"]
        text += (
            f"\nThe speech body has {body['body_parameters'] / 1e6:.2f} M parameters and spells held-out synthesized speech with "
            f"{percent(heard['rate'])} CER after {body['seconds_of_speech'] / 60:.0f} minutes of it.\n"
        )
    distances = [
        [names[name], place, f"{found['frames'][place]['centroid_distance']:.2f}", percent(found["frames"][place]["probe_accuracy"]),
         f"{found['sentences'][place]['centroid_distance']:.2f}", percent(found["sentences"][place]["probe_accuracy"])]
        for name, found in result.get("analysis", {}).items() if isinstance(found, dict) for place in ("before", "after")
    ]  # fmt: skip
    if distances:
        text += (
            "\nHow far brain features are from those of the same sentences spoken (centres in units of the spread; share of features that a "
            "linear probe tells apart on sentences it has not seen, chance 50 %):\n\n"
            + table(
                ["model", "the body", "centres, frames", "probe, frames", "centres, sentences", "probe, sentences"],
                distances,
            )
            + "\n![Brain and speech features before and after the body](../benchmarks/results/wav2vec2_brain_features.png)\n"
        )
    speeds = [
        [names[name], str(found["threads"]), f"{row['parameters'] / 1e6:.2f} M", f"{row['bins_per_s']:,.0f}",
         f"{row['bins_per_cpu_s']:,.0f}", f"{row['cpu_speed_beside_bit']:.2f}x",
         f"{row['latency_ms']['median']:.1f} / {row['latency_ms']['p95']:.1f}"]
        for found in result.get("speed", []) for name, row in found["rows"].items()
    ]  # fmt: skip
    if speeds:
        text += (
            f"\n`{result['command']} --speed`: in turns, median of {result['speed'][0]['rounds']}; latency of a sentence on one thread. "
            f"{machine_line({'machine': result['speed_machine']})}\n"
            + table(
                ["model", "threads", "parameters", "bins/s", "bins per CPU s", "beside BIT", "latency ms (p50 / p95)"],
                speeds,
            )
        )
    return text + ("\n" + result["note"] + "\n" if result.get("note") else "")


def language_models(result: dict[str, Any]) -> str:
    """Building and querying n-gram models."""

    def build(found: dict[str, Any]) -> list[str]:
        return [f"{found['wall_s']:.0f}", f"{found['cpu_s']:.0f}", f"{found['peak_rss_mb']:,.0f}"]

    def query(found: dict[str, Any]) -> list[str]:
        perplexity = f"{found['perplexity']:.2f}" if "perplexity" in found else "-"
        return [
            f"{found['file_mb']:.0f}", f"{found['bytes_per_ngram']:.2f}", perplexity,
            f"{1e3 * found['open_s']:.0f} / {1e3 * found['open_checked_s']:.0f}", f"{found['rss_all_pages_mb']:.0f}",
            f"{found['sentence_ns_per_word']:.0f}", f"{found['compiled_ns_per_word']:.0f}",
        ]  # fmt: skip

    rows = []
    for order, row in result["small"].items():
        for name in ("exact", "quantized"):
            found = row[name]
            rows.append([f"{order}-gram, {name}", f"{sum(found['ngrams']):,}", *build(found), *query(found["query"])])
        if "lmplz" in row:
            kenlm = f"{row['kenlm']['sentence_ns_per_word']:.0f}" if "kenlm" in row else "-"
            size = f"{row['kenlm_trie_mb']:.0f}"
            rows.append(
                [
                    f"{order}-gram, lmplz; KenLM trie, 8 bits",
                    f"{sum(row['exact']['ngrams']):,}",
                    *build(row["lmplz"]),
                    size,
                ]
                + [
                    f"{1e6 * row['kenlm_trie_mb'] / sum(row['exact']['ngrams']):.2f}",
                    f"{row['lmplz']['perplexity']:.2f}",
                ]
                + ["-", "-", kenlm, "-"]
            )
    large = result.get("large")
    if large:
        rows.append(["large 5-gram, quantized", f"{sum(large['ngrams']):,}", *build(large), *query(large["query"])])
    if large and "lmplz" in large:
        rows.append(["large 5-gram, lmplz", f"{sum(large['ngrams']):,}", *build(large["lmplz"]), *["-"] * 7])
    decoding = ""
    if "decoding" in result:
        cells = []
        for beam_size in ("100", "500"):
            for order, found in result["decoding"][beam_size].items():
                for name, row in found["sets"].items():
                    resident = row["resident_mb"]
                    cells.append(
                        [f"{order}-gram, {found['ngrams']:,}", beam_size, name, f"{100 * row['wer']:.2f}",
                         f"{row['us_per_frame_first_pass']:.0f}", f"{row['us_per_frame_second_pass']:.0f}",
                         f"{sum(resident.values()):.0f}", f"{resident['own']:.0f}"]
                    )  # fmt: skip
        head = [
            "model",
            "beam",
            "set",
            "WER %",
            "us per frame, first pass",
            "second pass",
            "resident MB",
            "of that its own",
        ]
        decoding = (
            "\nThe large model beside lm3s in the same search, one thread, fixed weights, 125,074 words; a first pass makes the tries of "
            "language-model states, a second finds them. Pages of files are shared between processes.\n\n"
            + table(head, cells)
        )
    header = ["model", "n-grams", "build s", "CPU s", "peak MB", "file MB", "bytes per n-gram", "perplexity"]
    header += ["open ms (checked)", "resident MB, all pages", "ns per word, by sentence", "ns per word, compiled"]
    return (
        "## Language models\n\n"
        "`python -m benchmarks.language_models --data_dir DIR --kenlm_dir FOLDER`: 12 million words, every 100th sentence held out; the large "
        "model is of 55 million words, most of them drawn from a 3-gram, so its size counts and not its perplexity. Two threads build. Open: without and "
        f"with checksums, vocabulary included. {machine_line(result)}\n" + table(header, rows) + decoding
    )


def rate_with_interval(values: list[float]) -> str:
    """Format a rate, or a difference of rates, with its interval, in per cent."""
    return f"{100 * values[0]:.1f} [{100 * values[1]:.1f}, {100 * values[2]:.1f}]"


def end_to_end(result: dict[str, Any]) -> str:
    """One network from activity to sentences, beside the cascade."""
    ways = {
        "cascade": "cascade: beam search, word 3-gram", "greedy": "network, greedy", "beam": "network, beam search",
        "nucleus": "network, nucleus sampling (p 0.9, T 0.7)", "own_rescored": "network's sentences, rescored by CTC and 3-gram",
        "cascade_rescored": "cascade's sentences, rescored by the network and CTC",
        "cascade_rescored_without_network": "cascade's sentences, rescored by CTC and 3-gram alone",
        "joint": "joint: both lists, all scores",
        "joint_or_cascade": "joint where it wins on validation sentences left out of the tuning, else the cascade", "oracle": "oracle: best of both lists",
    }  # fmt: skip
    kinds = {"imagined_scratch": "from scratch", "imagined_pretrained": "pretrained"}
    header = ["WER, %", "seeds", "pooled", "by seed", "minus the cascade"]
    rows = result["rows"]

    def line(row: dict[str, Any]) -> list[str]:
        by_seed = ", ".join(f"{100 * value:.1f}" for value in row["by_seed"])
        minus = rate_with_interval(row["minus_cascade"]) if row["minus_cascade"] else "-"
        return [ways[row["way"]], ", ".join(map(str, row["seeds"])), rate_with_interval(row["wer"]), by_seed, minus]

    def lines(found: list[dict[str, Any]]) -> list[list[str]]:
        return [line(row) for way in ways for row in found if row["way"] == way]

    main = {
        name: [row for row in rows["main"] if row.get("variant", "reference") == name]
        for name in ("reference", "longer_spelling")
    }

    text = (
        "## End to end\n\n"
        f"`{result['command']}`. {result['what']}; intervals over seeds and sentences. {machine_line(result)}\n"
        "Attempted speech, t15-like participants:\n\n" + table(header, lines(main["reference"]))
    )
    better = next((row["minus_better"] for row in main["reference"] if row["way"] == "joint"), [])
    if better:
        shown = "; ".join(
            rate_with_interval([one["difference"], one["difference_low"], one["difference_high"]]) for one in better
        )
        text += f"\nJoint decoding minus the better of the two alone, seed by seed (points): {shown}.\n"
    if main["longer_spelling"]:
        text += (
            "\nThe same with a language model that has learnt to spell in two rounds instead of one:\n\n"
            + table(header, lines([row for row in main["longer_spelling"] if not row["way"].startswith("cascade")]))
        )  # fmt: skip
    if rows["ablation"]:
        text += "\nThe same network with one thing changed, greedy, the same updates for all:\n\n" + table(
            ["variant", "seeds", "WER, %", "by seed", "minus reference", "token accuracy, teacher-forced"],
            [
                [
                    row["variant"].replace("_", " "), ", ".join(map(str, row["seeds"])), rate_with_interval(row["wer"]),
                    ", ".join(f"{100 * value:.1f}" for value in row["by_seed"]),
                    rate_with_interval(row["minus_reference"]) if row["minus_reference"] else "-", percent(row["token_accuracy"]),
                ]
                for row in rows["ablation"]
            ],
        )  # fmt: skip
    if rows["imagined"]:
        text += "\nImagined speech, fifty words, 500 sentences, encoder pretrained or not:\n\n" + table(
            ["encoder", *header],
            [[name, *cells] for kind, name in kinds.items() for cells in lines([r for r in rows["imagined"] if r["kind"] == kind])],
        )  # fmt: skip
        found = result["imagined_pretrained_minus_scratch"]
        if found:
            seeds = ", ".join(map(str, found["seeds"]))
            shown = rate_with_interval(found["difference"])
            text += f"\nNetwork on the pretrained encoder minus that from scratch, seeds {seeds}: {shown} points.\n"
    text += _end_to_end_latency(result) + _end_to_end_analysis(result)
    return text + ("\n" + result["note"] + "\n" if result.get("note") else "")


def _end_to_end_latency(result: dict[str, Any]) -> str:
    latency = result.get("latency")
    if not latency:
        return ""
    steps = {
        "features": "features", "encoder": "encoder and projector", "prefill": "prefill", "token": "each further token",
        "sentence": "whole sentence", "cascade_encoder": "cascade: encoder", "cascade_search": "cascade: search",
    }  # fmt: skip
    counts = list(latency["threads"])
    rows = [[name, *(f"{latency['threads'][number][step]:.1f}" for number in counts)] for step, name in steps.items()]
    sizes = latency["parameters"]
    text = (
        f"\nMilliseconds for one sentence, median of {latency['sentences']}; encoder of {sizes['encoder'] / 1e6:.1f} M, language model of "
        f"{sizes['language_model'] / 1e6:.1f} M parameters; without the cache of keys and values a sentence takes "
        f"{latency['without_cache_sentence']:.0f} ms:\n\n"
        + table(["step", *(f"threads: {number}" for number in counts)], rows)
    )
    projected = latency["projected"]
    rows = [
        [machine, name, *(f"{one[key]:,.1f}" for key in ("prefill_ms", "token_ms", "sentence_ms"))]
        for machine, found in projected["machines"].items()
        for name, one in found["models"].items()
    ]
    return text + (
        f"\nProjected, not measured: published sizes in bfloat16, {projected['prompt_tokens']} tokens of prompt, {projected['answer_tokens']} of "
        "answer; prefill by the rate of large products, each token by reading all weights once (measured rates of this processor, half the peak "
        "of one H100):\n\n" + table(["machine", "language model", "prefill ms", "token ms", "sentence ms"], rows)
    )


def _end_to_end_analysis(result: dict[str, Any]) -> str:
    found = result.get("analysis")
    if not found:
        return ""
    errors = found["errors"]
    text = ""
    for key, title in (("by_frequency", "occurrences in the text"), ("by_length", "words in the sentence")):
        names = list(dict.fromkeys(one["name"] for classes in errors[key].values() for one in classes))
        cells = {
            name: {one["name"]: percent(one["error"]["rate"]) for one in classes}
            for name, classes in errors[key].items()
        }
        text += f"\nWord errors by {title}, first seed:\n\n" + table(
            ["", *names], [[decoder, *(one.get(name, "-") for name in names)] for decoder, one in cells.items()]
        )
    similarity = "; ".join(
        f"{name} {one['mean']:.3f} [{one['low']:.3f}, {one['high']:.3f}], rescaled {one['rescaled']:.3f}"
        for name, one in found["embedding_similarity"].items()
    )
    stages = "; ".join(
        f"{name} {one['correlation']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"
        for name, one in found["stages"].items()
    )
    looked = found["attention"]
    return text + (
        "\n![Errors by word frequency and sentence length](../benchmarks/results/end_to_end_errors.png)\n"
        f"\nCosine of mean token embeddings to what was said: {similarity}.\n"
        f"\nCorrelation of dissimilarities with those of the text model's embeddings: {stages}.\n"
        "\n![Stages](../benchmarks/results/end_to_end_stages.png)\n"
        f"\nThe written tokens give {percent(looked['share_on_neural_tokens'])} of their attention to neural tokens:\n"
        "\n![Attention](../benchmarks/results/end_to_end_attention.png)\n"
    )


def space(result: dict[str, Any]) -> str:
    """How long a visitor of the Space waits."""
    names = {"first_text": "first partial text", "sentence": "sentence", "all_results": "all results, figure included"}
    rows = [
        [name, f"{result['first_press_s'][key]:.2f}", f"{result['median_s'][key]:.2f}", f"{result['worst_s'][key]:.2f}"]
        for key, name in names.items()
    ]
    stages = ", ".join(f"{stage} {milliseconds:.0f} ms" for stage, milliseconds in result["stages_ms"].items())
    return (
        "## The Space\n\n"
        f"`{result['command']}`. Seconds from the press of the button to what is on the page, by the browser's own clock: a trial of {result['recording_s']:.1f} s, "
        f"{result['what']}; the server has {result['threads']} threads and shares the machine with the browser. {machine_line(result)}\n"
        + table(["until", "first press", "median", "worst"], rows)
        + f"\nOn the server, in the last press: {stages}. {result['partial_texts']} partial texts were shown. From `python space/app.py` to its first answer {result['server_start_s']:.1f} s, "
        f"to load the page {result['page_load_s']:.1f} s; the server takes at most {result['server_peak_memory_mb']:.0f} MB.\n"
    )


SECTIONS: dict[str, Callable[[dict[str, Any]], str]] = {
    "demo": demo,
    "first_sentence": first_sentence,
    "encoders": encoders,
    "wav2vec2_brain": wav2vec2_brain,
    "end_to_end": end_to_end,
    "conversion": conversion,
    "decoding": decoding,
    "space": space,
    "pretraining": pretraining,
    "corpus_reading": corpus_reading,
    "pretraining_throughput": pretraining_throughput,
    "fusion": fusion,
    "language_models": language_models,
    "encoding": tables_stories.encoding,
    "brain_tuning": tables_stories.brain_tuning,
    "ieeg_audio": tables_ieeg_audio.ieeg_audio,
    "ieeg_preprocessing": tables_ieeg_audio.ieeg_preprocessing,
    "ieeg_preprocessing_day": tables_ieeg_audio.ieeg_preprocessing_day,
}


def main() -> None:
    """Write the page."""
    parts = [HEAD]
    for name, write in SECTIONS.items():
        path = RESULTS / f"{name}.json"
        if path.exists():
            parts.append(write(json.loads(path.read_text(encoding="utf-8"))))
    figure = RESULTS / "simulator_statistics.png"
    if figure.exists():
        parts.append(
            "## The simulator beside a real trial\n\n`python -m benchmarks.simulator_statistics`: the preset `t12-like` against one trial of participant T12.\n\n"
            f"![Second-order statistics, real and simulated](../benchmarks/results/{figure.name})\n"
        )
    print(write_text(PAGE, "\n".join(parts)))


if __name__ == "__main__":
    main()
