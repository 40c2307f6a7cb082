"""Training and scoring of encoders on trials: the trainer, its settings, checkpoints and the record of a run."""

from bit_speech.training.causal_lm import (
    NUM_PARTS,
    PackedSentences,
    SealCheckpoints,
    read_sentences,
    select_sentences,
    sentence_part,
    train_tokenizer,
)
from bit_speech.training.checkpoints import newest_complete_checkpoint
from bit_speech.training.contrastive_trainer import BITLLMTrainingArguments, ContrastiveTrainer
from bit_speech.training.llm_stages import (
    build_end_to_end,
    choose_trained_parts,
    load_end_to_end,
    load_in_4bit,
    merge_adapters,
)
from bit_speech.training.pretrainer import BITPretrainer
from bit_speech.training.pretraining_arguments import PRETRAINING_SETTINGS, BITPretrainingArguments
from bit_speech.training.scoring import phoneme_scores
from bit_speech.training.trainer import BITTrainer
from bit_speech.training.training_arguments import COMMON_SETTINGS, BITTrainingArguments

__all__ = [
    "COMMON_SETTINGS",
    "NUM_PARTS",
    "PRETRAINING_SETTINGS",
    "BITPretrainer",
    "BITPretrainingArguments",
    "BITLLMTrainingArguments",
    "BITTrainer",
    "BITTrainingArguments",
    "ContrastiveTrainer",
    "PackedSentences",
    "SealCheckpoints",
    "build_end_to_end",
    "choose_trained_parts",
    "load_end_to_end",
    "load_in_4bit",
    "merge_adapters",
    "newest_complete_checkpoint",
    "phoneme_scores",
    "read_sentences",
    "select_sentences",
    "sentence_part",
    "train_tokenizer",
]
