"""A page that shows a speech decoder at work: `python app.py`, or a Gradio Space on the Hugging Face Hub.

python space/app.py                                # the model in the box
python space/app.py --model my-lab/p01-decoder     # any published model; on a Space set BIT_SPEECH_MODEL
"""

from __future__ import annotations

import argparse
import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from listening import Listener
    from trials import Trial


def main(argv: list[str] | None = None) -> None:
    """Load the models, warm them up, and serve the page until it is stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default=os.environ.get("BIT_SPEECH_MODEL"), help="folder or Hub id; default: the model in the box"
    )
    parser.add_argument(
        "--end_to_end", default=os.environ.get("BIT_SPEECH_END_TO_END"), help="an end-to-end model to compare with"
    )
    parser.add_argument("--port", type=int, help="default: GRADIO_SERVER_PORT, or the first free one from 7860; 0: any")
    arguments = parser.parse_args(argv)
    # Gradio reports its use by default; and what follows takes seconds to import, so not before the arguments are read.
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    import markup
    from listening import Listener
    from page import THEME, build_page
    from trials import bundled_trials

    try:
        listener = Listener(*models(arguments.model, arguments.end_to_end))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    trials = listener.readable(bundled_trials())
    warm_up(listener, trials)
    page = build_page(listener, trials)
    with socket.socket() as held:
        port = arguments.port
        if port == 0:
            # Held until the end, so that nobody else is given it between choosing and listening.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(("127.0.0.1", 0))
            port = held.getsockname()[1]
        page.launch(
            server_port=port, theme=THEME, css=markup.STYLE, footer_links=[], ssr_mode=False, max_file_size="200mb"
        )


def models(model: str | None, end_to_end: str | None) -> tuple[str, str | None]:
    """Choose the models.

    Args:
        model (`str`, *optional*): what the user named.
        end_to_end (`str`, *optional*): what the user named.

    Returns:
        `tuple[str, str | None]`: the model, and the end-to-end model beside it if there is one. Without any name they
        are the models in the box.
    """
    from bit_speech.sample_checkpoints import sample_checkpoint, sample_names

    if model is not None:
        return model, end_to_end
    if end_to_end is None and "sim-llm" in sample_names():
        end_to_end = str(sample_checkpoint("sim-llm"))
    return str(sample_checkpoint("sim-ctc")), end_to_end


def warm_up(listener: Listener, trials: list[Trial]) -> None:
    """Decode once before anybody waits for it: compiled code is loaded and memory is taken.

    Args:
        listener (`Listener`): the models.
        trials (`list[Trial]`): the first one is decoded; without any, the first visitor waits a second longer.
    """
    from figures import posterior_figure, recording_figure

    for trial in trials[:1]:
        transcript = listener.hear(trial)
        for _ in listener.search(transcript):
            pass
        listener.write(transcript)
        recording_figure(trial)
        if transcript.log_probs is not None:
            posterior_figure(transcript)


if __name__ == "__main__":
    main()
