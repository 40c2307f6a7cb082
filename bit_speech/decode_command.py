"""What the command `bit-speech decode` does."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bit_speech.files import write_text

if TYPE_CHECKING:
    from bit_speech.decoding import PartialText
    from bit_speech.transcription import Transcriber, Transcription

EPILOG = """\
examples:
  bit-speech decode --model sim-ctc --simulated 5                        # a model in the box, and trials made for it
  bit-speech decode --model runs/me/model --trials runs/me/trials --split test
  bit-speech decode --model runs/me/model trial_1.npy trial_2.npz --session_id me.2024.01.05
  bit-speech decode --model runs/me/model --trials runs/me/trials --json --nbest 10 > predictions.jsonl
  bit-speech decode --model runs/t15/model --trials runs/t15/trials --submission brain_to_text_25 --output t15.csv

A model folder with a decoder beside it (as `bit-speech finetune` saves one) writes words; give --lexicon and --lm
otherwise, or get phonemes. End-to-end models write words by themselves. Files are .npy, .npz, .h5/.hdf5 or .nwb with
one trial each, (bins, channels), or HDF5 with a trial per group. They may say their session_id, block_index and text;
those that say neither session nor block are taken for one block. Longer recordings: bit-speech convert.
"""
SUBMISSIONS = ("brain_to_text_24", "brain_to_text_25")
_DECODER_SETTINGS = ("beam_size", "lm_weight", "acoustic_scale", "word_score")
# Scoring refuses an empty line; any frequent word costs no more errors than nothing.
_FILLER = "the"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the flags of the command.

    Args:
        parser (`argparse.ArgumentParser`): is changed.
    """
    parser.add_argument("files", nargs="*", metavar="FILE", help="recordings of trials: .npy, .npz, .h5, .hdf5, .nwb")
    parser.add_argument("--model", required=True, help="folder or Hub name, or a model in the box: sim-ctc, sim-llm")
    parser.add_argument("--trials", help="folder written by `bit-speech convert`, instead of files")
    parser.add_argument("--split", default="test", help="split of --trials (default: test)")
    parser.add_argument(
        "--simulated", type=int, metavar="N", help="N held-out trials of the participant that a model in the box knows"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N trials")
    parser.add_argument(
        "--field", help="what files call the features (default: features, neural, input_features or neural_features)"
    )
    parser.add_argument("--participant_id", help="of the files (default: what they say, or the model's only one)")
    parser.add_argument("--session_id", help="of the files, for models that know their sessions (default: as they say)")
    add_decoder_arguments(parser)
    parser.add_argument("--nbest", type=int, default=1, metavar="N", help="the N best sentences of each trial")
    parser.add_argument("--stream", action="store_true", help="show each sentence as it grows: settled | still open")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object per trial and line: text, score, words with times, n-best"
    )
    parser.add_argument("--output", metavar="FILE", help="write there instead of to standard output")
    parser.add_argument("--submission", choices=SUBMISSIONS, help="write --output as this benchmark wants it")


def add_decoder_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the flags that choose a word decoder; those left out are the saved decoder's.

    Args:
        parser (`argparse.ArgumentParser`): is changed.
    """
    parser.add_argument("--lexicon", help="word<TAB>phonemes file, or cmudict, instead of the model's own decoder")
    parser.add_argument("--lm", help="n-gram language model, .arpa[.gz|.xz] or saved by `bit-speech build-lm`")
    parser.add_argument("--beam_size", type=int, help="hypotheses kept (default: the saved decoder's, or 500)")
    parser.add_argument("--lm_weight", type=float, help="(default: the saved decoder's, or 1.0)")
    parser.add_argument("--acoustic_scale", type=float, help="(default: the saved decoder's, or 0.5)")
    parser.add_argument("--word_score", type=float, help="(default: the saved decoder's, or 0.0)")


def run(arguments: argparse.Namespace) -> int:
    """Run the command.

    Args:
        arguments (`argparse.Namespace`): from a parser with [`add_arguments`].

    Returns:
        `int`: 0.

    Raises:
        ValueError: for flags that do not go together, and trials that the model cannot read.
        FileNotFoundError: when a file or folder is not there.
    """
    _check(arguments)
    trials = _trials(arguments)
    transcriber = _load(arguments)
    if transcriber.writes != "words":
        print(f"decode: the model has no word decoder, so it writes {transcriber.writes}", file=sys.stderr)
    found = _transcribe(arguments, transcriber, trials)
    if arguments.submission:
        path = _submit(arguments, list(found))
    elif arguments.output:
        path = write_text(arguments.output, "".join(_line(one, arguments) for one in found))
    else:
        for one in found:
            print(_line(one, arguments), end="", flush=True)
        return 0
    print(f"{path}: {len(trials):,} sentences", file=sys.stderr)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what does not go together before anything is loaded."""
    sources = [name for name in ("files", "trials", "simulated") if getattr(arguments, name)]
    if len(sources) != 1:
        raise ValueError("give one source of trials: FILES, --trials FOLDER or --simulated N")
    for name in ("nbest", "limit", "simulated"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            raise ValueError(f"--{name} is {getattr(arguments, name)}; give 1 or more")
    if not arguments.files and (arguments.field or arguments.participant_id or arguments.session_id):
        raise ValueError("--field, --participant_id and --session_id belong to files; converted trials know theirs")
    if arguments.submission and not (arguments.output and arguments.trials):
        raise ValueError("--submission needs --trials, the whole test split, and --output, the file to upload")
    if arguments.submission and (arguments.json or arguments.stream or arguments.limit):
        raise ValueError("--submission is a file of its own form: drop --json, --stream and --limit")


def _load(arguments: argparse.Namespace) -> Transcriber:
    from bit_speech.sample_checkpoints import find_model
    from bit_speech.transcription import Transcriber

    settings = {key: getattr(arguments, key) for key in _DECODER_SETTINGS if getattr(arguments, key) is not None}
    # Confidences need a lattice, and so do lists; a sentence alone is found without one, and sooner.
    settings["num_hypotheses"] = max(10, arguments.nbest) if arguments.json or arguments.nbest > 1 else 1
    return Transcriber.from_pretrained(find_model(arguments.model), arguments.lexicon, arguments.lm, **settings)


def _trials(arguments: argparse.Namespace) -> Sequence[Mapping[str, Any]]:
    if arguments.simulated:
        from bit_speech.sample_checkpoints import sample_trials

        return sample_trials(arguments.model, count=arguments.simulated)[: arguments.limit]
    if arguments.trials:
        from bit_speech.data import TrialReader, load_trials

        trials = load_trials(arguments.trials, arguments.split)
        trials = trials if arguments.limit is None else trials.take(min(arguments.limit, len(trials)))
        return cast("Sequence[Mapping[str, Any]]", TrialReader(trials))
    return [trial for name in arguments.files for trial in _read_file(name, arguments)][: arguments.limit]


def _read_file(path: str, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Trials of a file; what is said on the command line beats what the file says."""
    from bit_speech.data import read_trial_file

    said = {"participant_id": arguments.participant_id, "session_id": arguments.session_id}
    for trial in read_trial_file(path, arguments.field):
        yield trial | {name: value for name, value in said.items() if value is not None}


def _transcribe(
    arguments: argparse.Namespace, transcriber: Transcriber, trials: Sequence[Mapping[str, Any]]
) -> Iterator[Transcription]:
    from tqdm import tqdm

    on_partial = _print_partial if arguments.stream else None
    found = transcriber.transcribe(trials, num_best=arguments.nbest, on_partial=on_partial)
    # A bar where somebody looks, but not between sentences that are printed to the same terminal.
    shown = arguments.output is not None or not sys.stdout.isatty()
    bar = tqdm(found, total=len(trials), desc="decoding", unit="trial", disable=None if shown else True, leave=False)
    for number, one in enumerate(bar):
        if not one.text:
            place = ", ".join(f"{key} {value}" for key, value in one.place.items()) or f"number {number}"
            print(f"decode: the sentence of trial {place} is empty", file=sys.stderr)
        yield one


def _print_partial(seconds: float, partial: PartialText) -> None:
    still_open = partial.text[len(partial.stable) :].strip()
    print(f"  {seconds:6.2f} s  {partial.stable} | {still_open}", file=sys.stderr, flush=True)


def _line(one: Transcription, arguments: argparse.Namespace) -> str:
    if arguments.json:
        return json.dumps(one.to_dict(), ensure_ascii=False) + "\n"
    more = "".join(f"    {other['score']:10.2f}  {other['text']}\n" for other in one.nbest)
    return f"{one.text}\n{more}"


def _submit(arguments: argparse.Namespace, found: Sequence[Transcription]) -> Path:
    from bit_speech.evaluation import submission_order, write_submission_24, write_submission_25

    places = [[one.place[key] for one in found] for key in ("session_id", "block_index", "trial_index")]
    sentences = [found[i].text or _FILLER for i in submission_order(*places)]
    empty = sum(not one.text for one in found)
    if empty:
        print(f"decode: {empty} sentences are empty and became {_FILLER!r}", file=sys.stderr)
    write = write_submission_24 if arguments.submission == "brain_to_text_24" else write_submission_25
    return write(arguments.output, sentences)
