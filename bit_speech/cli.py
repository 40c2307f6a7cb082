"""The console script `bit-speech`: its commands, their help, and how a refusal is shown."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from bit_speech import decode_command, report_command
from bit_speech.hub import command as publish_command

# Converter -> what it reads.
CONVERTERS = {
    "brain_to_text_24": "T12, attempted speech: competitionData, MATLAB v5",
    "brain_to_text_25": "T15, attempted speech: hdf5_data_final",
    "podcast_ecog": "nine patients, a podcast, ECoG and sound: OpenNeuro ds005574, BIDS",
    "brain_treebank": "ten patients, movies, sEEG and your copies of the sound: HDF5",
    "bids_ieeg_audio": "any BIDS folder of iEEG with sound files",
    "own_ieeg_audio": "your own days of EDF and WAV on two clocks, with a small YAML file",
    "participant": "your own NPZ, HDF5 or NWB files, with a small YAML file",
    "chowdhury_2020": "macaques, reaching, area 2: Dryad, trial_data",
    "churchland_2012": "macaques, maze reaching: DANDI:000070",
    "even_chen_2019": "macaques, delayed reaching: DANDI:000121",
    "falcon_h1": "human, attempted reach and grasp: DANDI:000954",
    "falcon_h2": "T5, attempted handwriting: DANDI:000950",
    "fan_2023": "T5, attempted handwriting over a year (CORP): Dryad",
    "kunz_2025": "T12, T15, T16, T17, attempted, imagined, heard and read words: Dryad",
    "ma_2023": "macaques, wrist force, grasping, reaching: Dryad, xds",
    "nlb_2021": "macaques, MC_Maze and MC_RTT: DANDI:000128, DANDI:000129",
    "odoherty_2017": "macaques, random-target reaching: Zenodo 3854034",
    "perich_2018": "macaques, reaching, years: DANDI:000688",
    "temmar_2025": "macaque, finger movements, years (LINK): DANDI:001201",
    "willett_2021": "T5, attempted handwriting: Dryad",
    "lebel": "UTS01-08, stories in fMRI: OpenNeuro ds003020 (a folder of stories)",
    "narratives": "stories in fMRI: OpenNeuro ds002345 (a folder of stories)",
    "little_prince": "The Little Prince in three languages, fMRI: OpenNeuro ds003643 (a folder of stories)",
    "bids_stories": "any BIDS fMRI data set with sounds (a folder of stories)",
}

# Kind of model -> its experiment, and what is trained.
KINDS = {
    "ctc": ("train_ctc", "an encoder that gives phonemes, for the word decoder: transformer (BIT) or GRU"),
    "wav2vec2": ("train_wav2vec2", "a speech model that listens to the cortex: Wav2Vec2, HuBERT, WavLM, data2vec"),
    "llm": ("train_llm", "end to end: encoder, projector and language model in one network"),
    "causal-lm": ("train_causal_lm", "a small language model from text, where none can be downloaded"),
}

EPILOG = """\
a first walk:
  bit-speech decode --model sim-ctc --simulated 5   # a model in the box reads five sentences
  bit-speech demo                                   # the whole road on a simulated participant, in minutes
  bit-speech simulate --preset t15-like --output_dir runs/sim/hdf5_data_final
  bit-speech convert brain_to_text_25 --input_dir runs/sim/hdf5_data_final --output_dir runs/trials --allow_partial
  bit-speech finetune --data runs/trials --output_dir runs/walk
  bit-speech evaluate --model runs/walk/model --trials runs/trials --lexicon lexicon.txt --lm lm.arpa.xz

your own participant:
  bit-speech convert participant --example > recordings/participant.yaml
  bit-speech finetune --data recordings --output_dir runs/me --check_only
  bit-speech finetune --data recordings --output_dir runs/me
  bit-speech decode --model runs/me/model --trials runs/me/trials --split test --json
  bit-speech publish --model runs/me/model --repo_id my-lab/me

for scripts: with --json, standard output holds the result as JSON and nothing else. Status 0 is success, 2 a refusal,
whose reason and remedy are on standard error.
"""


BUILD_LM_EPILOG = """\
examples:
  bit-speech build-lm --text corpus.txt.xz --order 3 --output lm.bin
  bit-speech build-lm --text a.txt b.txt.gz --order 5 --prune 0 0 1 --quantize --output lm5.bin
  bit-speech build-lm --text talk.txt books.txt --interpolate_on dev.txt --vocabulary words.txt --output lm.arpa.xz
  bit-speech build-lm --arpa lm.arpa.gz --quantize --output lm.bin

Text should be normalised as the decoder's lexicon spells words: usually lower case, without punctuation. A text that is
larger than memory needs --memory_gb. Binary files open in milliseconds and are shared between processes.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the argument parser of the console script.

    Returns:
        `argparse.ArgumentParser`: with one subparser per command.
    """
    parser = argparse.ArgumentParser(
        prog="bit-speech",
        description="Brain recordings in, sentences out.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    convert = commands.add_parser(
        "convert",
        help="raw files of one source -> trials (Parquet)",
        epilog="example:\n  bit-speech convert participant --config my_participant.yaml --output_dir runs/me/trials\n\n"
        "sources:\n" + "\n".join(f"  {name:18}{reads}" for name, reads in CONVERTERS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    convert.add_argument("source", choices=CONVERTERS, metavar="source", help="layout of the raw files; see below")
    convert.add_argument(
        "rest", nargs=argparse.REMAINDER, help="the converter's own flags: bit-speech convert SOURCE --help"
    )

    simulate = commands.add_parser(
        "simulate",
        help="write a simulated participant in an official layout",
        epilog="example:\n  bit-speech simulate --preset t15-like --output_dir runs/sim/hdf5_data_final",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    simulate.add_argument("--preset", default="demo", help="demo, t12-like or t15-like (default: demo)")
    simulate.add_argument("--layout", choices=("brain_to_text_24", "brain_to_text_25"), default="brain_to_text_25")
    simulate.add_argument("--seed", type=int, default=0, help="another seed is another participant (default: 0)")
    simulate.add_argument("--output_dir", required=True, help="folder to write into")
    simulate.add_argument("--json", action="store_true", help="print what was written as JSON")

    # Their flags, and their help, are those of an experiment.
    commands.add_parser("pretrain", add_help=False, help="an encoder from recordings of many participants, no labels")
    train = commands.add_parser(
        "train",
        help="a model on trials: " + ", ".join(KINDS),
        epilog="examples:\n  bit-speech train ctc --trials runs/trials --output_dir runs/bit\n"
        "  bit-speech train llm --encoder runs/bit/model --language_model Qwen/Qwen2.5-0.5B --trials runs/trials\n"
        "  bit-speech train ctc --config experiment.yaml --learning_rate 1e-3       # a flag beats the file\n"
        "  bit-speech train ctc --help                                              # its settings\n\n"
        "kinds:\n" + "\n".join(f"  {name:12}{what}" for name, (_, what) in KINDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.add_argument("kind", choices=KINDS, metavar="kind", help="what is trained; see below")
    train.add_argument(
        "rest", nargs=argparse.REMAINDER, help="the experiment's own settings: bit-speech train KIND --help"
    )

    commands.add_parser(
        "finetune", add_help=False, help="your own participant: data report, settings, training, scores, report"
    )

    decode = commands.add_parser(
        "decode",
        help="recordings -> sentences: text, JSON lines with times and n-best, or a benchmark's file",
        epilog=decode_command.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    decode_command.add_arguments(decode)

    evaluate = commands.add_parser(
        "evaluate",
        help="error rates of a trained model on trials: phonemes, words, letters",
        epilog="examples:\n  bit-speech evaluate --model runs/me/model --trials runs/me/trials\n"
        "  bit-speech evaluate --model runs/me/model --trials runs/me/trials --lexicon cmudict --lm lm.bin\n\n"
        "Words are written by the decoder beside the model (as `bit-speech finetune` saves one), by one of --lexicon\n"
        "and --lm, or by an end-to-end model itself; without any of these phonemes are scored.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    evaluate.add_argument(
        "--model", required=True, help="folder or Hub name of model and processor, or sim-ctc, sim-llm"
    )
    evaluate.add_argument("--trials", required=True, help="folder written by `bit-speech convert`")
    evaluate.add_argument("--split", default="validation", help="split to score (default: validation)")
    decode_command.add_decoder_arguments(evaluate)
    evaluate.add_argument(
        "--output_dir", default="runs/evaluation", help="metrics.json, predictions.jsonl and the report"
    )
    evaluate.add_argument("--json", action="store_true", help="print the metrics as JSON, and all else elsewhere")

    report = commands.add_parser(
        "report",
        help="predictions -> one HTML page: rates with intervals, confusions, sentences, comparisons",
        epilog=report_command.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    report_command.add_arguments(report)

    build_lm = commands.add_parser(
        "build-lm",
        help="n-gram language model from text, or from an ARPA file",
        description="Build an n-gram language model (interpolated modified Kneser-Ney), or convert an ARPA file.",
        epilog=BUILD_LM_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = build_lm.add_mutually_exclusive_group(required=True)
    source.add_argument("--text", nargs="+", help="text, one normalised sentence per line; .gz, .xz, .bz2 are read too")
    source.add_argument("--arpa", help="ARPA file to convert, .arpa[.gz|.xz|.bz2]")
    build_lm.add_argument("--output", required=True, help="name.arpa[.gz|.xz|.bz2] for text, any other name for binary")
    build_lm.add_argument("--order", type=int, default=3, help="length of the longest n-grams, 1 to 6 (default: 3)")
    build_lm.add_argument(
        "--prune", type=int, nargs="+", default=[0], metavar="N",
        help="per order, drop n-grams that occur at most N times; the last N holds for higher orders (default: 0)",
    )  # fmt: skip
    build_lm.add_argument("--vocabulary", help="file of words, separated by white space; all others become <unk>")
    build_lm.add_argument("--max_words", type=int, help="keep only so many of the most frequent words")
    build_lm.add_argument("--interpolate_on", help="held-out text: one model per --text, mixed to fit this best")
    build_lm.add_argument("--weights", type=float, nargs="+", help="one model per --text, mixed with these weights")
    build_lm.add_argument("--quantize", action="store_true", help="8-bit scores: about 4 bytes per n-gram")
    build_lm.add_argument("--memory_gb", type=float, help="working memory; what is above goes to temporary files")
    build_lm.add_argument(
        "--temporary_dir", help="folder for temporary files, which are removed (default: the system's)"
    )
    build_lm.add_argument("--threads", type=int, help="threads to compute on (default: all cores)")
    build_lm.add_argument("--json", action="store_true", help="print order and counts as JSON")

    demo = commands.add_parser(
        "demo",
        help="a sentence from a model in the box; then simulate, convert, train, decode, report, in minutes",
        epilog="example:\n  bit-speech demo --quick",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo.add_argument("--output_dir", default="runs/demo")
    demo.add_argument("--quick", action="store_true", help="small sizes: proves the road, not the accuracy")
    demo.add_argument("--seed", type=int, default=0)
    demo.add_argument("--json", action="store_true", help="print the metrics as JSON")

    publish = commands.add_parser(
        "publish",
        help="model, dataset card or metric -> the Hugging Face Hub; shows what it would do unless --push",
        epilog=publish_command.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    publish_command.add_arguments(publish)

    doctor = commands.add_parser(
        "doctor",
        help="check this machine: versions, accelerator, optional parts, and what to install for each",
        epilog="example:\n  bit-speech doctor --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    info = commands.add_parser(
        "info",
        help="versions and hardware, for bug reports",
        epilog="example:\n  bit-speech info --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for command in (doctor, info):
        command.add_argument("--json", action="store_true", help="print JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the console script.

    Args:
        argv (`list[str]`, *optional*): arguments without the program name; default the process's own.

    Returns:
        `int`: exit status; 2 for input that was refused, with the reason on standard error.
    """
    parser = build_parser()
    arguments, rest = parser.parse_known_args(argv)
    if arguments.command in ("pretrain", "finetune"):
        arguments.rest = rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    command = {
        "convert": _convert,
        "simulate": _simulate,
        "pretrain": _pretrain,
        "train": _train,
        "finetune": _finetune,
        "decode": decode_command.run,
        "evaluate": _evaluate,
        "report": report_command.run,
        "build-lm": _build_lm,
        "demo": _demo,
        "publish": publish_command.run,
        "doctor": _doctor,
        "info": _info,
    }[arguments.command]
    try:
        return command(arguments)
    except (ValueError, OSError, ImportError) as error:
        # Refusals carry their remedy; a traceback would bury it.
        name = " ".join([arguments.command, *([arguments.kind] if arguments.command == "train" else [])])
        print(f"bit-speech {name}: {error}", file=sys.stderr)
        return 2


def _print_result(as_json: bool, run: Callable[[], Any]) -> int:
    """Run; with JSON, standard output holds the result alone, and what is said on the way goes to standard error."""
    if not as_json:
        run()
        return 0
    with contextlib.redirect_stdout(sys.stderr):
        result = run()
    print(json.dumps(result, indent=2))
    return 0


def _experiment(module: str, rest: list[str]) -> int:
    """Run an experiment, whose command line is its own but for `--json`."""

    def run() -> Any:
        from bit_speech.training.run_record import finite

        experiment = importlib.import_module(f"bit_speech.{module}")
        main = experiment.finetune if module == "finetuning" else experiment.main
        return finite(main([flag for flag in rest if flag != "--json"]))

    return _print_result("--json" in rest, run)


def _convert(arguments: argparse.Namespace) -> int:
    converter = importlib.import_module(f"datasets_scripts.convert_{arguments.source}")
    return converter.main(arguments.rest) or 0


def _simulate(arguments: argparse.Namespace) -> int:
    from bit_speech.simulation import PRESETS, SimulatedParticipant, write_brain_to_text_24, write_brain_to_text_25

    if arguments.preset not in PRESETS:
        raise ValueError(f"--preset {arguments.preset!r} is unknown; choose one of {', '.join(sorted(PRESETS))}")
    participant = SimulatedParticipant(PRESETS[arguments.preset], seed=arguments.seed)
    write = write_brain_to_text_25 if arguments.layout == "brain_to_text_25" else write_brain_to_text_24

    def run() -> dict[str, Any]:
        write(participant, arguments.output_dir)
        counts = {split: participant.num_trials(split) for split in ("train", "val", "test")}
        return {"output_dir": arguments.output_dir, "layout": arguments.layout, "num_trials": counts}

    return _print_result(arguments.json, run)


def _pretrain(arguments: argparse.Namespace) -> int:
    return _experiment("experiments.pretrain", arguments.rest)


def _train(arguments: argparse.Namespace) -> int:
    return _experiment(f"experiments.{KINDS[arguments.kind][0]}", arguments.rest)


def _finetune(arguments: argparse.Namespace) -> int:
    return _experiment("finetuning", arguments.rest)


def _evaluate(arguments: argparse.Namespace) -> int:
    from bit_speech.scoring import evaluate_model

    settings = {key: value for key, value in vars(arguments).items() if key not in ("command", "json")}
    return _print_result(arguments.json, lambda: evaluate_model(**settings))


def _build_lm(arguments: argparse.Namespace) -> int:
    from bit_speech.decoding.lm_command import build_lm

    def run() -> dict[str, Any]:
        lm = build_lm(**{key: value for key, value in vars(arguments).items() if key not in ("command", "json")})
        return {"output": arguments.output, "order": lm.order, "counts": list(lm.counts)}

    return _print_result(arguments.json, run)


def _demo(arguments: argparse.Namespace) -> int:
    from bit_speech.demo import run_demo

    settings = {"quick": arguments.quick, "seed": arguments.seed}
    return _print_result(arguments.json, lambda: run_demo(arguments.output_dir, **settings))


def _doctor(arguments: argparse.Namespace) -> int:
    from bit_speech.doctor import examine

    checks = examine()
    if arguments.json:
        print(json.dumps([check.to_dict() for check in checks], indent=2))
    else:
        print("\n".join(map(str, checks)))
    return 1 if any(check.state == "broken" for check in checks) else 0


def _info(arguments: argparse.Namespace) -> int:
    import torch  # noqa: F401  (hardware() names accelerators once torch is loaded)

    from bit_speech.machine import git_commit, hardware

    found = hardware() | {"git_commit": git_commit()}
    if arguments.json:
        print(json.dumps(found, indent=2))
        return 0
    versions = found.pop("versions")
    for name, value in {**found, **versions}.items():
        print(f"{name} {', '.join(value) or 'none' if isinstance(value, list) else value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
