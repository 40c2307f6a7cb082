"""Train an encoder on trials with CTC: `bit-speech train ctc` as a script.

    python examples/train_bit_ctc.py --config examples/configs/bit_simulated.yaml
    torchrun --nproc-per-node 2 examples/train_bit_ctc.py --config examples/configs/bit_t15.yaml --trials DIR

The experiment is `bit_speech/experiments/train_ctc.py`.
"""

import sys

from bit_speech.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", "ctc", *sys.argv[1:]]))
