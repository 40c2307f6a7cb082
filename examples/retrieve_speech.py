"""Give a recording, get the sounds that the brain most likely heard, and listen to them in a report.

    python examples/retrieve_speech.py --model runs/ieeg_audio_simulated/model --simulate '{"num_days": 2}' --queries 8
    python examples/retrieve_speech.py --model runs/s1/model --segments runs/segments/s1 --output_dir runs/retrieved

The windows of the test files are queries and candidates at once. The report is one HTML file with the sounds inside.
"""

from __future__ import annotations

import base64
import html
import io
import json
import sys
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.hf_argparser import HfArg

from bit_speech.arguments import ExperimentParser
from bit_speech.data.aligned_segments import WindowSet, load_segments, make_windows
from bit_speech.data.audio_features import LogMelFeatures, SpeechModelFeatures
from bit_speech.evaluation.retrieval import Ranks, retrieval_ranks, score_ranks
from bit_speech.evaluation.retrieval_figures import rank_figure
from bit_speech.files import write_text
from bit_speech.simulation.continuous import ContinuousConfig, SimulatedPatient
from bit_speech.training.window_batches import scale_windows
from modeling_bit import IEEGAudioForRetrieval
from processing_bit import IEEGAudioProcessor


@dataclass
class RetrievalArguments:
    """What is searched with what."""

    model: str = HfArg(default="", help="Folder of a trained model, with its processor.")
    segments: str | None = HfArg(default=None, help="Folder of aligned segments.")
    simulate: dict[str, Any] | str | None = HfArg(default=None, help="A simulated patient (JSON), instead.")
    split: str = HfArg(default="test", help="Whose windows are searched: train, validation or test.")
    condition: str = HfArg(default="ambient", help="ambient, clean or clean_in_room.")
    queries: int = HfArg(default=12, help="Windows shown in the report, evenly spread over those with speech.")
    nearest: int = HfArg(default=5, help="Sounds shown for each.")
    output_dir: str = HfArg(default="runs/retrieved", help="Where the report goes.")

    def __post_init__(self) -> None:
        """Check what can be checked before any data is read."""
        if isinstance(self.simulate, str):
            self.simulate = json.loads(self.simulate)
        if not self.model or (self.segments is None) == (self.simulate is None):
            raise ValueError("give --model, and either --segments or --simulate")


def read(arguments: RetrievalArguments, settings: dict[str, Any]) -> tuple[WindowSet, list[np.ndarray], int]:
    """Windows with the features that the model was trained to find, and their sounds."""
    if arguments.simulate is not None:
        patient = SimulatedPatient(ContinuousConfig(**arguments.simulate))
        names = [name for name, split in patient.splits.items() if split == arguments.split]
        rows: Any = (row for name in names for row in patient.segments(name))
    else:
        rows = load_segments(arguments.segments or "")
    chosen = [r for r in rows if r["split"] == arguments.split and r["condition"] == arguments.condition]
    if not chosen:
        raise ValueError(f"there is no segment for {arguments.split} with the condition {arguments.condition!r}")
    if settings.get("kind") == "speech_model":
        windows = make_windows(chosen, SpeechModelFeatures(settings["model"], settings["layer"]))
    else:
        windows = make_windows(chosen, LogMelFeatures(settings.get("num_mels", 40)))
    rate = int(chosen[0]["audio_rate_hz"])
    sounds = [sound for row in chosen for sound in np.split(row["audio"][: 30 * rate], 10)]
    return windows, sounds, rate


def player(sound: np.ndarray, rate_hz: int) -> str:
    """An HTML element that plays a sound."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(np.asarray(sound, dtype="<i2").tobytes())
    content = base64.b64encode(buffer.getvalue()).decode()
    return f'<audio controls preload="none" src="data:audio/wav;base64,{content}"></audio>'


def report(
    windows: WindowSet,
    sounds: list[np.ndarray],
    rate: int,
    scores: np.ndarray,
    ranks: Ranks,
    settings: RetrievalArguments,
) -> str:
    """The page."""
    spoken = np.flatnonzero(windows.speech >= 0.5)
    pool = spoken if len(spoken) else np.arange(len(windows))
    shown = pool[np.linspace(0, len(pool) - 1, min(settings.queries, len(pool))).round().astype(int)]
    figure = base64.b64encode(rank_figure({"model": ranks})).decode()
    parts = [f'<h1>What was heard?</h1><p><img alt="ranks" src="data:image/png;base64,{figure}"></p>']
    for query in shown:
        where = html.escape(f"{windows.file[query]}, {windows.start_s[query]:.0f} s")
        parts.append(f"<h2>{where}: rank {ranks.rank[query]:.0f} of {ranks.num_candidates[query]}</h2>")
        parts.append(f"<p>heard {player(sounds[query], rate)}</p><ol>")
        for found in np.argsort(-scores[query])[: settings.nearest]:
            mark = " (it is this one)" if found == query else ""
            parts.append(f"<li>{player(sounds[found], rate)} cosine {scores[query, found]:.2f}{mark}</li>")
        parts.append("</ol>")
    return "<!doctype html><meta charset='utf-8'><title>What was heard?</title>" + "\n".join(parts)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Search and report."""
    parser = ExperimentParser(
        [RetrievalArguments],
        description=(__doc__ or "").split("\n\n")[0],
        example="python examples/retrieve_speech.py --model runs/s1/model --segments runs/segments/s1",
    )
    (arguments,) = parser.parse(argv)
    model = IEEGAudioForRetrieval.from_pretrained(arguments.model).eval()
    processor = IEEGAudioProcessor.from_pretrained(arguments.model)
    windows, sounds, rate = read(arguments, processor.target_settings)
    size, parts = model.config.embedding_size, []
    # What else the model was trained to find plays no part in this search.
    targets = np.zeros((len(windows), model.config.label_size), np.float32)
    targets[:, :size] = windows.targets
    wanted = processor.normalize_targets(targets)[:, :size]
    features = torch.from_numpy(scale_windows(windows, processor))
    participant = str(windows.participant[0])
    index = list(processor.feature_extractor.participants).index(participant)
    places = {key: torch.from_numpy(value) for key, value in processor.feature_extractor.places(participant).items()}
    with torch.inference_mode():
        for batch in features.split(256):
            more = {key: value.expand(len(batch), *value.shape) for key, value in places.items()}
            parts.append(model(batch, participant_index=torch.full((len(batch),), index), **more).embedding.numpy())
    predicted = np.concatenate(parts)
    ranks = retrieval_ranks(predicted, wanted)
    lengths = [np.linalg.norm(v, axis=1, keepdims=True) + 1e-9 for v in (predicted, wanted)]
    similar = (predicted / lengths[0]) @ (wanted / lengths[1]).T
    path = Path(arguments.output_dir) / "report.html"
    write_text(path, report(windows, sounds, rate, similar, ranks, arguments))
    scores = score_ranks(ranks, windows.file).to_dict()
    print(json.dumps(scores, indent=2), f"\n{path}")
    return scores


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"retrieve_speech: {error}")
