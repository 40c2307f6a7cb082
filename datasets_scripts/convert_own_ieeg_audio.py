"""Your own days of recordings: EDF (or what MNE reads) and WAV on two clocks -> aligned segments.

    python -m datasets_scripts.convert_own_ieeg_audio --config my_week.yaml --output_dir segments/me

The clocks' offset and drift are estimated where the iEEG system recorded the sound too, and reported either way.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bit_speech.data.clocks import ENVELOPE_HZ, ClockEstimate, envelope, estimate_clock
from bit_speech.data.ieeg_recordings import Recording, auxiliary_channels, open_recording, read_audio
from datasets_scripts.aligned_recordings import AlignedFile, cut_blocks, ieeg_parser, run_ieeg_converter

EPILOG = """\
the YAML file:
  participant_id: p1
  licence: private
  recordings:                       # one entry a recording file, in order of time
    - ieeg: day1/morning.edf        # relative to the YAML file
      audio: day1/morning.wav
      session: day1
      sync_channel: DC1             # channel of the EDF that recorded the room's sound: offset and drift are estimated
      bad_channels: [A3, A4]
    - ieeg: day1/noon.edf
      audio: day1/noon.wav
      session: day1
      audio_start_s: 12.5           # without such a channel: second of the sound at which the iEEG begins
      drift_ppm: 0                  # and what the sound's clock gains in a million seconds, if known
      condition: clean              # ambient (default), clean or clean_in_room
Heart, eyes, triggers and inputs (EKG, EOG, TRIG, DC...) are left out by their names.
Recordings are files of about two hours; --block_min cuts longer ones.
"""
_KEYS = {"ieeg", "audio", "session", "sync_channel", "bad_channels", "audio_start_s", "drift_ppm", "condition"}


def synchronise(recording: Recording, channel: str, audio: Path) -> ClockEstimate:
    """Estimate the clocks of a recording that holds the sound too.

    Args:
        recording ([`~bit_speech.data.ieeg_recordings.Recording`]): the iEEG.
        channel (`str`): its channel with the sound.
        audio (`Path`): the sound file.

    Returns:
        [`~bit_speech.data.clocks.ClockEstimate`]: offset, drift and how sure they are.

    Raises:
        ValueError: if there is no such channel, or the sounds do not match.
    """
    if channel not in recording.channel_names:
        raise ValueError(f"sync_channel {channel!r} is not in the recording; it has {recording.channel_names[-8:]}")
    position, rate = recording.channel_names.index(channel), recording.sampling_rate_hz
    # Whole bins of 5 ms at a time, so that the pieces join.
    step = round(60 * rate)
    pieces = [
        recording.read(start, min(start + step, recording.num_samples))[position]
        for start in range(0, recording.num_samples, step)
    ]
    reference, sounds, start = envelope(np.concatenate(pieces), rate), [], 0.0
    while True:
        samples, audio_hz = read_audio(audio, start, 60.0)
        if len(samples) < audio_hz / ENVELOPE_HZ:
            break
        sounds.append(envelope(samples, audio_hz))
        start += 60.0
    every_s = min(60.0, max(5.0, len(reference) / ENVELOPE_HZ / 20))
    return estimate_clock(reference, np.concatenate(sounds), every_s=every_s)


def find(arguments: argparse.Namespace) -> list[AlignedFile]:
    """List what is converted.

    Args:
        arguments (`argparse.Namespace`): from the command line.

    Returns:
        `list[AlignedFile]`: all recordings.

    Raises:
        ValueError: naming the recording and the key, for a configuration that cannot be used.
    """
    config_path = Path(arguments.config)
    config = yaml.safe_load(config_path.read_text(encoding="utf-8"))
    if not isinstance(config, dict) or not config.get("recordings") or not config.get("participant_id"):
        raise ValueError(f"{config_path.name} needs participant_id and recordings; see --help")
    files = []
    for number, entry in enumerate(config["recordings"]):
        where = f"{config_path.name}, recording {number}"
        wrong, missing = sorted(set(entry) - _KEYS), sorted({"ieeg", "audio", "session"} - set(entry))
        if wrong or missing:
            raise ValueError(f"{where}: unknown key(s) {wrong}, missing key(s) {missing}; see --help")
        if ("sync_channel" in entry) == ("audio_start_s" in entry):
            raise ValueError(f"{where}: give either sync_channel or audio_start_s")
        path, audio = config_path.parent / entry["ieeg"], config_path.parent / entry["audio"]
        recording = open_recording(path)
        bad: list[str] = list(entry.get("bad_channels", ()))
        bad += [name for name in auxiliary_channels(recording.channel_names) if name not in bad]
        more: dict[str, Any] = {"recording": entry["ieeg"], "left_out": bad}
        if "sync_channel" in entry:
            clock = synchronise(recording, entry["sync_channel"], audio)
            bad += [entry["sync_channel"]] * (entry["sync_channel"] not in bad)
            more["clock"] = clock.to_dict()
            if not arguments.quiet:
                print(
                    f"{path.name}: the sound begins {clock.offset_s:+.3f} s before the iEEG, its clock drifts by "
                    f"{clock.drift_ppm:+.1f} ppm ({clock.num_points} of {clock.num_stretches} stretches, residual "
                    f"{1000 * clock.residual_s:.1f} ms)"
                )
        else:
            clock = ClockEstimate(float(entry["audio_start_s"]), float(entry.get("drift_ppm", 0.0)), 0.0, 0, 0)
            more["clock"] = {"audio_start_s": clock.offset_s, "drift_ppm": clock.drift_ppm, "estimated": False}
        files += _blocks(entry, config, recording, path, audio, clock, bad, more, 60 * arguments.block_min)
    return files


def _blocks(
    entry: dict[str, Any],
    config: dict[str, Any],
    recording: Recording,
    path: Path,
    audio: Path,
    clock: ClockEstimate,
    bad: list[str],
    more: dict[str, Any],
    block_s: float,
) -> list[AlignedFile]:
    duration = recording.num_samples / recording.sampling_rate_hz
    start = max(0.0, -clock.offset_s / (1 + 1e-6 * clock.drift_ppm))  # where the sound begins later
    participant = str(config["participant_id"])
    file = AlignedFile(
        participant_id=participant,
        session_id=f"{participant}.{entry['session']}",
        file_id=f"{entry['session']}_{Path(entry['ieeg']).stem}",
        recording=path,
        audio=audio,
        clock=clock.anchors(start, duration),
        condition=entry.get("condition", "ambient"),
        bad_channels=tuple(bad),
        more=more,
    )
    return cut_blocks(file, block_s) if duration > block_s else [file]


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Args:
        argv (`list[str]`, *optional*): arguments; default those of the process.

    Returns:
        `int`: exit status.
    """
    parser = ieeg_parser("own_ieeg_audio", (__doc__ or "").split("\n\n")[0], EPILOG)
    parser.add_argument("--config", required=True, help="YAML file that lists the recordings")
    parser.add_argument("--block_min", type=float, default=120.0, help="minutes that go to one split together")
    about = {"title": "Own recordings", "source": "own recordings", "licence": "private"}
    return run_ieeg_converter("own_ieeg_audio", find, parser.parse_args(argv), **about)


if __name__ == "__main__":
    sys.exit(main())
