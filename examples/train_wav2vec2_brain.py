"""Teach a speech model to listen to the cortex: `bit-speech train wav2vec2` as a script.

    python examples/train_wav2vec2_brain.py --config examples/configs/wav2vec2_brain_simulated.yaml

The experiment is `bit_speech/experiments/train_wav2vec2.py`.
"""

import sys

from bit_speech.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", "wav2vec2", *sys.argv[1:]]))
