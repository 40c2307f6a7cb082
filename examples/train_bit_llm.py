"""Train the end-to-end decoder: `bit-speech train llm` as a script.

    python examples/train_bit_llm.py --config examples/configs/bit_llm_small.yaml
    torchrun --nproc-per-node 2 examples/train_bit_llm.py --config examples/configs/bit_llm_paper_t15.yaml --trials DIR

The experiment is `bit_speech/experiments/train_llm.py`.
"""

import sys

from bit_speech.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", "llm", *sys.argv[1:]]))
