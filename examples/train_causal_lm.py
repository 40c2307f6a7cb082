"""Train a small causal language model from text: `bit-speech train causal-lm` as a script.

    python examples/train_causal_lm.py --config examples/configs/causal_lm_small.yaml --text corpus.txt.xz

The experiment is `bit_speech/experiments/train_causal_lm.py`.
"""

import sys

from bit_speech.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", "causal-lm", *sys.argv[1:]]))
