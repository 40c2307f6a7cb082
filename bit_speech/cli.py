"""The console script `bit-speech`: convert, simulate, evaluate, build-lm, demo, finetune, publish, doctor, info."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import sys
from collections.abc import Sequence

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

EPILOG = """\
a first walk:
  bit-speech demo                                   the whole road on a simulated participant, in minutes
  bit-speech simulate --preset t15-like --output_dir runs/sim
  bit-speech convert brain_to_text_25 --input_dir runs/sim/hdf5_data_final --output_dir runs/trials --allow_partial
  python examples/train_bit_ctc.py --config examples/configs/bit_simulated.yaml
  bit-speech evaluate --model runs/bit_simulated/model --trials runs/trials --lexicon lexicon.txt --lm lm.arpa.xz

your own participant:
  bit-speech convert participant --example > recordings/participant.yaml
  bit-speech finetune --data recordings --output_dir runs/me --check_only
  bit-speech finetune --data recordings --output_dir runs/me
  bit-speech publish --model runs/me/model --repo_id my-lab/me
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
        epilog="example:\n  bit-speech simulate --preset t15-like --output_dir runs/sim",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    simulate.add_argument("--preset", default="demo", help="demo, t12-like or t15-like (default: demo)")
    simulate.add_argument("--layout", choices=("brain_to_text_24", "brain_to_text_25"), default="brain_to_text_25")
    simulate.add_argument("--seed", type=int, default=0, help="another seed is another participant (default: 0)")
    simulate.add_argument("--output_dir", required=True, help="folder to write into")

    evaluate = commands.add_parser(
        "evaluate",
        help="error rates of a trained model on trials, with words if given a lexicon",
        epilog="example:\n  bit-speech evaluate --model runs/me/model --trials runs/me/trials --lexicon cmudict --lm "
        "lm.bin\n\nWithout --lexicon only phonemes are scored.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    evaluate.add_argument("--model", required=True, help="folder or Hub name of model and processor")
    evaluate.add_argument("--trials", required=True, help="folder written by `bit-speech convert`")
    evaluate.add_argument("--split", default="validation", help="split to score (default: validation)")
    evaluate.add_argument("--lexicon", help="word<TAB>phonemes file; without it only phonemes are scored")
    evaluate.add_argument("--lm", help="n-gram language model, .arpa[.gz|.xz] or saved by NGramLM.save")
    evaluate.add_argument("--beam_size", type=int, default=500)
    evaluate.add_argument("--lm_weight", type=float, default=1.0)
    evaluate.add_argument("--acoustic_scale", type=float, default=0.5)
    evaluate.add_argument("--word_score", type=float, default=0.0)
    evaluate.add_argument(
        "--output_dir", default="runs/evaluation", help="metrics.json, predictions.jsonl and the report"
    )
    evaluate.add_argument("--json", action="store_true", help="print the metrics as JSON, and all else elsewhere")

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

    demo = commands.add_parser(
        "demo",
        help="simulate, convert, train, decode, report: about five minutes on two cores",
        epilog="example:\n  bit-speech demo --quick",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo.add_argument("--output_dir", default="runs/demo")
    demo.add_argument("--quick", action="store_true", help="small sizes: proves the road, not the accuracy")
    demo.add_argument("--seed", type=int, default=0)

    # Its flags, and its help, are those of an experiment.
    commands.add_parser(
        "finetune", add_help=False, help="your own participant: data report, settings, training, scores, report"
    )

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
    if arguments.command == "finetune":
        arguments.rest = rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    command = {
        "convert": _convert,
        "simulate": _simulate,
        "evaluate": _evaluate,
        "build-lm": _build_lm,
        "demo": _demo,
        "finetune": _finetune,
        "publish": publish_command.run,
        "doctor": _doctor,
        "info": _info,
    }[arguments.command]
    try:
        return command(arguments)
    except (ValueError, FileNotFoundError, FileExistsError, PermissionError, ConnectionError, ImportError) as error:
        # Refusals carry their remedy; a traceback would bury it.
        print(f"bit-speech {arguments.command}: {error}", file=sys.stderr)
        return 2


def _convert(arguments: argparse.Namespace) -> int:
    converter = importlib.import_module(f"datasets_scripts.convert_{arguments.source}")
    return converter.main(arguments.rest) or 0


def _simulate(arguments: argparse.Namespace) -> int:
    from bit_speech.simulation import PRESETS, SimulatedParticipant, write_brain_to_text_24, write_brain_to_text_25

    if arguments.preset not in PRESETS:
        raise ValueError(f"--preset {arguments.preset!r} is unknown; choose one of {', '.join(sorted(PRESETS))}")
    participant = SimulatedParticipant(PRESETS[arguments.preset], seed=arguments.seed)
    write = write_brain_to_text_25 if arguments.layout == "brain_to_text_25" else write_brain_to_text_24
    write(participant, arguments.output_dir)
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from bit_speech.scoring import evaluate_model

    settings = {key: value for key, value in vars(arguments).items() if key not in ("command", "json")}
    if not arguments.json:
        evaluate_model(**settings)
        return 0
    with contextlib.redirect_stdout(sys.stderr):
        metrics = evaluate_model(**settings)
    print(json.dumps(metrics, indent=2))
    return 0


def _build_lm(arguments: argparse.Namespace) -> int:
    from bit_speech.decoding.lm_command import build_lm

    build_lm(**{key: value for key, value in vars(arguments).items() if key != "command"})
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from bit_speech.demo import run_demo

    run_demo(arguments.output_dir, quick=arguments.quick, seed=arguments.seed)
    return 0


def _finetune(arguments: argparse.Namespace) -> int:
    from bit_speech.finetuning import finetune

    finetune(arguments.rest)
    return 0


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
