"""Podcast ECoG: nine patients listen to 30 minutes of a podcast; BIDS -> aligned segments.

    python -m datasets_scripts.convert_podcast_ecog --input_dir ds005574 --output_dir segments/podcast --notch_hz 60

Source: Zada et al. 2025, OpenNeuro ds005574 (CC0); layout as in the hassonlab tutorials, read for facts.
"""

from __future__ import annotations

import sys

from datasets_scripts.aligned_recordings import run_ieeg_converter
from datasets_scripts.convert_bids_ieeg_audio import find, parser


def main(argv: list[str] | None = None) -> int:
    """Run the command: the BIDS converter with the corpus's task, sound and mains frequency.

    Args:
        argv (`list[str]`, *optional*): arguments; default those of the process.

    Returns:
        `int`: exit status.

    Note:
        The recordings are taken to begin with the podcast, as the tutorials' word onsets do; give `--onset_s` or
        `--event` where yours does not. Not run on the release.
    """
    made = parser("podcast_ecog", (__doc__ or "").split("\n\n")[0])
    made.set_defaults(task="podcast", audio="stimuli/podcast.wav", notch_hz=60.0, block_min=3.0)
    about = {"title": "Podcast ECoG", "source": "OpenNeuro ds005574", "licence": "CC0-1.0"}
    return run_ieeg_converter("podcast_ecog", find, made.parse_args(argv), **about)


if __name__ == "__main__":
    sys.exit(main())
