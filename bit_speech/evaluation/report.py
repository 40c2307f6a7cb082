"""The report: one self-contained HTML page with figures, and the same numbers as JSON."""

from __future__ import annotations

import base64
import dataclasses
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bit_speech.evaluation.ctc_alignment import AlignedLabel, align_ctc
from bit_speech.evaluation.error_rates import (
    AlignedToken,
    ErrorRate,
    align_tokens,
    align_words,
    error_rate,
    error_rate_by_group,
    paired_bootstrap,
    split_words,
)
from bit_speech.files import write_bytes, write_json, write_text
from bit_speech.import_utils import require
from configuration_bit.phoneme_inventory_bit import MODEL_ORDER, SIL_TOKEN

if TYPE_CHECKING:
    from bit_speech.evaluation.report_figures import TimedWord

TRIAL_KEYS = {
    "session_id",
    "block_index",
    "trial_index",
    "reference_text",
    "reference_phonemes",
    "hypothesis_text",
    "hypothesis_phonemes",
    "features",
    "feature_kinds",
    "bin_size_ms",
    "log_probs",
    "words",
}
_RATE_UNITS = {"PER": "phoneme", "WER": "word", "CER": "character"}
_RATE_TITLES = {"PER": "Phoneme error rate", "WER": "Word error rate", "CER": "Character error rate"}
_OPEN_SENTENCES, _OPEN_EXAMPLES = 12, 2


def write_report(
    output_dir: str | os.PathLike[str],
    *,
    title: str,
    trials: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, Any] | None = None,
    comparisons: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    learning_curve: Sequence[Mapping[str, float]] | None = None,
    per_session: Mapping[str, Any] | None = None,
    system: str = "BIT",
    description: str = "",
    normalization: str = "brain_to_text_25",
    num_examples: int = 6,
    num_bootstrap: int = 10_000,
    seed: int = 0,
) -> Path:
    """Write `report.html` (one file, no outside resources), `report.json` and the figures as PNG files.

    Args:
        output_dir (`str`): folder to write into; made if missing.
        title (`str`): heading of the page.
        trials (`list[dict]`): the scored trials, in the order in which they are to be shown. Keys, all optional:
            `session_id`, `block_index`, `trial_index`; `reference_text` and `hypothesis_text`; `reference_phonemes` and
            `hypothesis_phonemes` (`"HH AY SIL"` or lists; without the latter the greedy decoding of `log_probs` is
            taken); `features` `(T, C)` with `feature_kinds` and `bin_size_ms` (default 20); `log_probs` `(P, 41)` in
            model class order; `words` with `text`, `start_frame` and `end_frame` in frames of `log_probs`. A rate is
            pooled over the trials that have both sides of it.
        metrics (`dict`, *optional*): further numbers. An entry that is itself a dictionary with `per`, `wer` or `cer`
            becomes a row of the comparison (rates that the report computes from sentences win); all else is listed
            under "Run".
        comparisons (`dict`, *optional*): other systems on the same trials: name -> list of dictionaries with
            `hypothesis_text` and `hypothesis_phonemes`, in the order of `trials`; compared sentence by sentence, with
            intervals of the ratio.
        learning_curve (`list[dict]`, *optional*): records with `step` and `loss`, `eval_loss`, `eval_per`, ...; a
            Trainer's `log_history` as it is.
        per_session (`dict`, *optional*): session -> PER as [`ErrorRate`], `(rate, low, high)` or number; computed from
            the trials when not given.
        system (`str`, *optional*): name of the system that made the hypotheses.
        description (`str`, *optional*): one or two sentences below the heading: what the data is and what may be
            concluded.
        normalization (`str`, *optional*): see [`~bit_speech.evaluation.normalize_text`].
        num_examples (`int`, *optional*): trials drawn with features, posteriors and words: the first ones that have
            features or log-probabilities.
        num_bootstrap (`int`, *optional*): resamples for the intervals.
        seed (`int`, *optional*): seed of the resamples.

    Returns:
        `Path`: of `report.html`.

    Raises:
        ValueError: for no trials, unknown keys of a trial, or lists of different lengths.
        ImportError: without matplotlib; the message holds the command that installs it.

    Note:
        Colours of errors come with a second sign each (underline, plus, strike-through), so that they need no colour
        vision. Frames of `log_probs` are spread evenly over the recording.
    """
    require("matplotlib")
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from bit_speech.evaluation import report_figures as figures

    output = Path(output_dir)
    trials = [_checked_trial(trial, index) for index, trial in enumerate(trials)]
    if not trials:
        raise ValueError("there is nothing to report: trials is empty")
    bootstrap = {"num_bootstrap": num_bootstrap, "seed": seed}
    metrics = dict(metrics or {})

    rates = _rates(trials, trials, normalization, bootstrap)
    rows = [{"name": system, "rates": rates, "ratios": {}}]
    for name, hypotheses in (comparisons or {}).items():
        if len(hypotheses) != len(trials):
            raise ValueError(
                f"comparison {name!r} has {len(hypotheses)} hypotheses for {len(trials)} trials; give one for each"
            )
        rows.append(
            {
                "name": name,
                "rates": _rates(trials, hypotheses, normalization, bootstrap),
                "ratios": _paired(trials, hypotheses, normalization, bootstrap),
            }
        )
    facts = _merge_metric_rows(rows, metrics)
    sessions = _session_rates(trials, per_session, bootstrap)
    confusions, insertions = _confusions(trials)
    by_length = _rates_by_length(trials, normalization, bootstrap)

    pngs: dict[str, bytes] = {}
    examples: list[dict[str, Any]] = []
    for index, trial in enumerate(trials):
        if len(examples) == num_examples:
            break
        # A trial shorter than a patch has no frames, and there may be nothing to draw.
        if all(trial.get(key) is None or len(trial[key]) == 0 for key in ("features", "log_probs")):
            continue
        name = f"trial_{index:04d}"
        pngs[name], note = _trial_png(figures, trial, normalization)
        examples.append({"figure": name, "note": note, **_sentence(trial, index, normalization)})
    has_curve = any(
        re.fullmatch(r"(eval_)?(loss|per|wer|cer)", key) for record in learning_curve or () for key in record
    )
    if learning_curve and has_curve:
        pngs["learning_curve"] = figures.learning_curve_figure(learning_curve)
    if sessions:
        pngs["per_session"] = figures.per_session_figure(sessions)
    if confusions:
        pngs["phoneme_confusions"] = figures.confusion_figure(confusions)
    if by_length:
        pngs["error_rate_by_length"] = figures.length_figure(by_length)

    sentences = [
        _sentence(trial, index, normalization)
        for index, trial in enumerate(trials)
        if trial.get("hypothesis_text") is not None
    ]
    worst = [
        {"said": said, "decoded": decoded, "count": count, "share": count / _uses(confusions, said)}
        for (said, decoded), count in confusions.most_common()
        if said != decoded
    ][:14]
    for folder_name, png in pngs.items():
        write_bytes(output / "figures" / f"{folder_name}.png", png)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"percent": _percent, "number": _number}
    page = environment.get_template("report.html.jinja").render(
        title=title,
        description=description,
        system=system,
        num_trials=len(trials),
        num_sessions=len({trial.get("session_id") for trial in trials} - {None}),
        tiles=_tiles(rows),
        rows=rows,
        columns=[name for name in _RATE_UNITS if any(name in row["rates"] for row in rows)],
        has_ratios=any(row["ratios"] for row in rows),
        examples=examples,
        sentences=sentences,
        num_open=_OPEN_SENTENCES,
        num_open_examples=_OPEN_EXAMPLES,
        worst=worst,
        num_insertions=sum(insertions.values()),
        facts=facts,
        images={name: base64.b64encode(png).decode("ascii") for name, png in pngs.items()},
    )
    write_json(
        output / "report.json",
        _plain(
            {
                "title": title,
                "description": description,
                "system": system,
                "normalization": normalization,
                "systems": {
                    row["name"]: {"rates": row["rates"], "ratio_of_first_to_this": row["ratios"]} for row in rows
                },
                "per_session": {name: dict(zip(("rate", "low", "high"), value)) for name, value in sessions.items()},
                "by_sentence_length": by_length,
                "confusions": worst,
                "inserted_phonemes": dict(insertions.most_common()),
                "learning_curve": list(learning_curve or []),
                "metrics": metrics,
                "sentences": sentences,
                "figures": [f"figures/{name}.png" for name in pngs],
            }
        ),
    )
    return write_text(output / "report.html", page)


def _checked_trial(trial: Mapping[str, Any], index: int) -> dict[str, Any]:
    unknown = set(trial) - TRIAL_KEYS
    if unknown:
        raise ValueError(f"trial {index} has unknown keys {sorted(unknown)}; known keys are {sorted(TRIAL_KEYS)}")
    checked = dict(trial)
    for key, width in (("features", None), ("log_probs", len(MODEL_ORDER))):
        if checked.get(key) is not None:
            array = np.asarray(checked[key], dtype=np.float32)
            if array.ndim != 2 or (width is not None and array.shape[1] != width):
                wanted = f"(frames, {width})" if width else "(bins, channels)"
                raise ValueError(f"trial {index}: {key} has shape {array.shape}, expected {wanted}")
            checked[key] = array
    if checked.get("hypothesis_phonemes") is None and checked.get("log_probs") is not None:
        checked["hypothesis_phonemes"] = _greedy_phonemes(checked["log_probs"])
    kinds, features = checked.get("feature_kinds"), checked.get("features")
    if kinds is not None and features is not None and len(kinds) != features.shape[1]:
        raise ValueError(f"trial {index}: {len(kinds)} feature_kinds for {features.shape[1]} channels")
    return checked


def _greedy_phonemes(log_probs: np.ndarray) -> list[str]:
    best = log_probs.argmax(axis=1)
    kept = best[np.insert(best[1:] != best[:-1], 0, True)] if len(best) else best
    return [MODEL_ORDER[index] for index in kept if index != 0]


def _phonemes(value: Any) -> list[str]:
    return value.split() if isinstance(value, str) else [str(token) for token in value]


def _both_sides(
    trials: Sequence[Mapping[str, Any]], hypotheses: Sequence[Mapping[str, Any]], unit: str
) -> list[tuple[int, Any, Any]]:
    """Index, reference and hypothesis of the trials that have both for a unit."""
    kind = "phonemes" if unit == "phoneme" else "text"
    pairs = []
    for index, (trial, hypothesis) in enumerate(zip(trials, hypotheses, strict=True)):
        expected, found = trial.get(f"reference_{kind}"), hypothesis.get(f"hypothesis_{kind}")
        if expected is not None and found is not None:
            pairs.append(
                (index, _phonemes(expected), _phonemes(found)) if kind == "phonemes" else (index, expected, found)
            )
    return pairs


def _rates(
    trials: Sequence[Mapping[str, Any]],
    hypotheses: Sequence[Mapping[str, Any]],
    normalization: str,
    bootstrap: dict[str, int],
) -> dict[str, Any]:
    rates = {}
    for name, unit in _RATE_UNITS.items():
        pairs = _both_sides(trials, hypotheses, unit)
        if pairs:
            _, expected, found = zip(*pairs)
            rates[name] = error_rate(expected, found, unit, normalization, **bootstrap)  # type: ignore[arg-type]
    return rates


def _paired(
    trials: Sequence[Mapping[str, Any]],
    hypotheses: Sequence[Mapping[str, Any]],
    normalization: str,
    bootstrap: dict[str, int],
) -> dict[str, Any]:
    """Ratio of the main system's rate to another system's, over the sentences that both have."""
    ratios = {}
    for name, unit in _RATE_UNITS.items():
        ours = {index: (expected, found) for index, expected, found in _both_sides(trials, trials, unit)}
        theirs = {index: found for index, _, found in _both_sides(trials, hypotheses, unit)}
        shared = sorted(ours.keys() & theirs.keys())
        if shared:
            ratios[name] = paired_bootstrap(
                [ours[i][0] for i in shared],
                [ours[i][1] for i in shared],
                [theirs[i] for i in shared],
                unit,  # type: ignore[arg-type]
                normalization,
                **bootstrap,
            )
    return ratios


def _merge_metric_rows(rows: list[dict[str, Any]], metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Add rows of the comparison that come as numbers, and list all other metrics as facts."""
    facts: list[tuple[str, str]] = []
    for key, value in metrics.items():
        given = {name.upper(): entry for name, entry in value.items()} if isinstance(value, Mapping) else {}
        given = {name: entry for name, entry in given.items() if name in _RATE_UNITS and _triple(entry) is not None}
        if not given:
            facts += _facts(key, value)
            continue
        name = key.replace("_", " ")
        row = next((row for row in rows if row["name"].lower() == name.lower()), None)
        if row is None:
            row = {"name": name, "rates": {}, "ratios": {}}
            rows.append(row)
        row["rates"] = {**{unit: _as_error_rate(entry) for unit, entry in given.items()}, **row["rates"]}
    return facts


def _facts(key: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [fact for name, entry in value.items() for fact in _facts(f"{key} · {name}", entry)]
    return [(key.replace("_", " "), _number(value))]


def _triple(value: Any) -> tuple[float, float, float] | None:
    """Rate and interval from an ErrorRate, its dictionary, a triple or a number; None for anything else."""
    if isinstance(value, ErrorRate):
        return value.rate, value.low, value.high
    if isinstance(value, Mapping) and "rate" in value:
        return tuple(float(value.get(name, value["rate"])) for name in ("rate", "low", "high"))  # type: ignore[return-value]
    if isinstance(value, (tuple, list)) and len(value) == 3:
        return float(value[0]), float(value[1]), float(value[2])
    if isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
        return float(value), math.nan, math.nan
    return None


def _as_error_rate(value: Any) -> Any:
    """An ErrorRate, or its look-alike for numbers that come without counts."""
    triple = _triple(value)
    return value if isinstance(value, ErrorRate) or triple is None else dict(zip(("rate", "low", "high"), triple))


def _session_rates(
    trials: Sequence[Mapping[str, Any]], per_session: Mapping[str, Any] | None, bootstrap: dict[str, int]
) -> dict[str, tuple[float, float, float]]:
    if per_session is not None:
        rates = {}
        for session, value in per_session.items():
            triple = _triple(value)
            if triple is None:
                raise ValueError(
                    f"per_session[{session!r}] is {value!r}; give an ErrorRate, (rate, low, high) or a number"
                )
            rate, low, high = triple
            rates[str(session)] = (rate, rate if math.isnan(low) else low, rate if math.isnan(high) else high)
        return rates
    pairs = [pair for pair in _both_sides(trials, trials, "phoneme") if trials[pair[0]].get("session_id") is not None]
    if not pairs:
        return {}
    indices, expected, found = zip(*pairs)
    groups = [str(trials[index]["session_id"]) for index in indices]
    by_group = error_rate_by_group(expected, found, groups, "phoneme", **bootstrap)  # type: ignore[arg-type]
    return {name: (rate.rate, rate.low, rate.high) for name, rate in sorted(by_group.items())}


def _rates_by_length(
    trials: Sequence[Mapping[str, Any]], normalization: str, bootstrap: dict[str, int]
) -> dict[str, dict[str, tuple[float, float, float]]]:
    """PER and WER in up to five classes of sentence length with about equally many sentences."""
    lengths = {
        index: len(split_words(trial["reference_text"], normalization))
        for index, trial in enumerate(trials)
        if trial.get("reference_text") is not None
    }
    if len(lengths) < 20:
        return {}
    edges = np.unique(np.quantile(list(lengths.values()), np.linspace(0, 1, 6)[1:-1], method="higher"))
    classes = {index: int(np.searchsorted(edges, length, side="left")) for index, length in lengths.items()}
    labels = {}
    for number in sorted(set(classes.values())):
        members = [lengths[index] for index, found in classes.items() if found == number]
        labels[number] = str(min(members)) if min(members) == max(members) else f"{min(members)}–{max(members)}"
    if len(labels) < 2:
        return {}
    rates = {}
    for name in ("WER", "PER"):
        pairs = [pair for pair in _both_sides(trials, trials, _RATE_UNITS[name]) if pair[0] in classes]
        groups = [classes[index] for index, _, _ in pairs]
        if set(groups) == set(labels):
            _, expected, found = zip(*pairs)
            by_group = error_rate_by_group(
                expected,
                found,
                groups,
                _RATE_UNITS[name],  # type: ignore[arg-type]
                normalization,
                **bootstrap,
            )
            rates[name] = {
                labels[number]: (by_group[number].rate, by_group[number].low, by_group[number].high)
                for number in labels
            }
    return rates


def _confusions(trials: Sequence[Mapping[str, Any]]) -> tuple[Counter[tuple[str, str | None]], Counter[str]]:
    """Pairs (said, decoded or None) with correct ones, and inserted phonemes."""
    confusions: Counter[tuple[str, str | None]] = Counter()
    insertions: Counter[str] = Counter()
    for _, expected, found in _both_sides(trials, trials, "phoneme"):
        for step in align_tokens(expected, found):
            if step.operation == "insertion":
                insertions[step.prediction] += 1
            else:
                confusions[step.reference, step.prediction] += 1
    return confusions, insertions


def _uses(confusions: Counter[tuple[str, str | None]], said: str) -> int:
    return sum(count for (reference, _), count in confusions.items() if reference == said)


def _sentence(trial: Mapping[str, Any], index: int, normalization: str) -> dict[str, Any]:
    """What the page shows about one sentence: its words with their errors, and counts."""
    reference, hypothesis = trial.get("reference_text"), trial.get("hypothesis_text")
    steps: list[AlignedToken] = []
    if reference is not None and hypothesis is not None:
        steps = align_words(reference, hypothesis, normalization)
    said, found = trial.get("reference_phonemes"), trial.get("hypothesis_phonemes")
    per = None
    if said is not None and found is not None:
        per = error_rate([_phonemes(said)], [_phonemes(found)], "phoneme", num_bootstrap=0).rate
    place = [str(trial["session_id"])] if trial.get("session_id") is not None else []
    place += [f"{key} {trial[f'{key}_index']}" for key in ("block", "trial") if trial.get(f"{key}_index") is not None]
    return {
        "index": index,
        "place": " · ".join(place),
        "reference": reference,
        "hypothesis": hypothesis,
        "steps": steps,
        "word_errors": sum(step.operation != "correct" for step in steps) if steps else None,
        "num_words": sum(step.operation != "insertion" for step in steps),
        "per": per,
    }


def _trial_png(figures: Any, trial: Mapping[str, Any], normalization: str) -> tuple[bytes, str]:
    """Figure of one trial, and a note when something could not be drawn."""
    features, log_probs = trial.get("features"), trial.get("log_probs")
    if features is not None:
        duration_s = len(features) * float(trial.get("bin_size_ms") or 20.0) / 1000.0
    else:
        # Without features the length of a frame is unknown; 100 ms is the paper's patch.
        duration_s = 0.1 * len(log_probs)  # type: ignore[arg-type]
    note, aligned, operations = "", [], []
    reference_words: list[TimedWord] = []
    hypothesis_words: list[TimedWord] = []
    if log_probs is not None and len(log_probs):
        frame_s = duration_s / len(log_probs)
        if trial.get("reference_phonemes") is not None:
            said = _phonemes(trial["reference_phonemes"])
            try:
                aligned = align_ctc(log_probs, said)
            except ValueError as error:
                note = f"The phonemes could not be aligned: {error}."
            steps = align_tokens(said, _phonemes(trial["hypothesis_phonemes"]))
            operations = [step.operation for step in steps if step.operation != "insertion"]
        words = split_words(trial["reference_text"], normalization) if trial.get("reference_text") is not None else []
        reference_words = _words_of_alignment(figures, aligned, words, frame_s)
        hypothesis_words = _timed_hypothesis(figures, trial, normalization, frame_s)
    png = figures.trial_figure(
        duration_s=duration_s,
        features=features,
        feature_kinds=trial.get("feature_kinds"),
        log_probs=log_probs,
        aligned=aligned,
        operations=operations,
        reference_words=reference_words,
        hypothesis_words=hypothesis_words,
    )
    return png, note


def _words_of_alignment(figures: Any, aligned: list[AlignedLabel], words: list[str], frame_s: float) -> list[TimedWord]:
    """Words of the reference at the times of their phonemes: SIL ends a word."""
    groups: list[list[AlignedLabel]] = [[]]
    for label in aligned:
        if label.phoneme == SIL_TOKEN:
            groups.append([])
        else:
            groups[-1].append(label)
    groups = [group for group in groups if group]
    if len(groups) != len(words):
        return []
    return [
        figures.TimedWord(word, group[0].onset_frame * frame_s, group[-1].offset_frame * frame_s)
        for word, group in zip(words, groups, strict=True)
    ]


def _timed_hypothesis(figures: Any, trial: Mapping[str, Any], normalization: str, frame_s: float) -> list[TimedWord]:
    words = []
    for word in trial.get("words") or ():
        text, start, end = (
            (word["text"], word["start_frame"], word["end_frame"])
            if isinstance(word, Mapping)
            else (word.text, word.start_frame, word.end_frame)
        )
        words.append(figures.TimedWord(text, float(start) * frame_s, float(end) * frame_s))
    if trial.get("reference_text") is None:
        return words
    steps = align_words(trial["reference_text"], " ".join(word.text for word in words), normalization)
    operations = [step.operation for step in steps if step.operation != "deletion"]
    if len(operations) != len(words):
        return words
    return [dataclasses.replace(word, operation=found) for word, found in zip(words, operations, strict=True)]


def _tiles(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Headline numbers of the first system, each with its interval and the other systems' rates on one scale."""
    tiles = []
    for name in _RATE_UNITS:
        triple = _triple(rows[0]["rates"].get(name))
        if triple is None:
            continue
        rate, low, high = triple
        low, high = (rate if math.isnan(value) else value for value in (low, high))
        others = {row["name"]: found[0] for row in rows[1:] if (found := _triple(row["rates"].get(name))) is not None}
        largest = max([high, *others.values()])
        scale = next((top for top in (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0) if top >= largest * 1.05), largest * 1.05)
        tiles.append(
            {
                "name": name,
                "title": _RATE_TITLES[name],
                "rate": rate,
                "low": low,
                "high": high,
                "place": 100 * rate / scale,
                "start": 100 * low / scale,
                "width": 100 * (high - low) / scale,
                "scale": scale,
                "others": [
                    {"name": other, "rate": value, "place": 100 * value / scale} for other, value in others.items()
                ],
            }
        )
    return tiles


def _percent(value: float, digits: int = 1) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f}"


def _number(value: Any) -> str:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return str(value)
    if isinstance(value, (int, np.integer)):
        return f"{value:,}"
    if isinstance(value, (float, np.floating)):
        number = float(value)
        return f"{number:.4g}" if abs(number) < 1e4 else f"{number:,.0f}"
    return str(value)


def _plain(value: Any) -> Any:
    """Turn anything in the report into what JSON can hold; NaN and infinity become null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, (bool, str)) or value is None:
        return value
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return str(value)
