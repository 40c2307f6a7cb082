"""Pretrain an encoder on unlabelled recordings: `bit-speech pretrain` as a script.

    python examples/pretrain_bit.py --config examples/configs/pretrain_bit_all.yaml
    torchrun --nproc-per-node 8 examples/pretrain_bit.py --config examples/configs/pretrain_bit_all.yaml --bf16 true

The experiment is `bit_speech/experiments/pretrain.py`.
"""

import sys

from bit_speech.cli import main

if __name__ == "__main__":
    sys.exit(main(["pretrain", *sys.argv[1:]]))
