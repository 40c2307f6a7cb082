"""A small model of every kind that is published, with its processor."""

import numpy as np
import torch

from bit_speech import (
    BITConfig,
    BITFeatureExtractor,
    BITForConditionalGeneration,
    BITForCTC,
    BITForMaskedModeling,
    BITGRUConfig,
    BITGRUForCTC,
    BITLLMConfig,
    BITLLMProcessor,
    BITModel,
    BITProcessor,
    BITProcessorWithDecoder,
    BrainTunedConfig,
    BrainTunedForVoxelPrediction,
    PhonemeTokenizer,
    SpellingTokenizer,
    StoryFeatureExtractor,
    Wav2Vec2BrainConfig,
    Wav2Vec2BrainForCTC,
)
from bit_speech.decoding import BeamSearchDecoder, Lexicon, build_ngram_lm
from bit_speech.training import train_tokenizer
from configuration_bit.configuration_ieeg_audio import IEEGAudioConfig
from modeling_bit.modeling_ieeg_audio import IEEGAudioForRetrieval
from processing_bit.feature_extraction_ieeg import IEEGFeatureExtractor
from processing_bit.processing_ieeg_audio import IEEGAudioProcessor

SMALL = {"hidden_size": 16, "num_hidden_layers": 1}
SESSIONS = ["t15.2023.08.11", "t15.2023.08.13"]
BODY = {
    "model_type": "wav2vec2", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 24, "conv_dim": [8, 8], "conv_kernel": [10, 3], "conv_stride": [5, 2], "layerdrop": 0.0,
    "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip


def neural(tokenizer=None, **settings):
    extractor = BITFeatureExtractor(participants={"t15": 6}, **{"normalization": "none", **settings})
    return BITProcessor(extractor, tokenizer or PhonemeTokenizer())


def bit(**settings):
    return BITConfig(participants={"t15": 6}, num_attention_heads=2, **SMALL, **settings)


def end_to_end():
    processor = BITLLMProcessor(
        BITFeatureExtractor(participants={"t15": 6}, normalization="none"), train_tokenizer(["i can speak"] * 4, 270)
    )
    text = {
        "model_type": "qwen2", "vocab_size": 270, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "intermediate_size": 24, "tie_word_embeddings": True,
    }  # fmt: skip
    encoder = {"participants": {"t15": 6}, "num_attention_heads": 2, **SMALL}
    config = BITLLMConfig(
        encoder_config=encoder, text_config=text, contrastive_size=8, neural_token_id=processor.neural_token_id
    )
    return BITForConditionalGeneration(config), processor


def save_models(root):
    """Write one folder for each kind of model; `ctc` has a decoder, and leftovers of a training run."""
    torch.manual_seed(0)
    ieeg = IEEGFeatureExtractor(participants={"s1": 5})
    ieeg.fit({"s1": [np.random.default_rng(0).normal(size=(400, 5))]})
    models = {
        "encoder": (BITModel(bit()), neural()),
        "pretraining": (BITForMaskedModeling(bit(mask_ratio=0.5)), neural()),
        "ctc": (BITForCTC(bit(sessions=SESSIONS, read_in="session")), neural(sessions=SESSIONS)),
        "gru": (
            BITGRUForCTC(BITGRUConfig(participants={"t15": 6}, **SMALL)),
            neural(feature_kinds=["spike_band_power"]),
        ),
        "wav2vec2": (
            Wav2Vec2BrainForCTC(
                Wav2Vec2BrainConfig(
                    participants={"t15": 6}, sessions=SESSIONS, vocab_size=len(SpellingTokenizer()), patch_size=8,
                    hidden_size=8, num_hidden_layers=2, body_config=BODY,
                )
            ),
            neural(SpellingTokenizer(), sessions=SESSIONS),
        ),
        "ieeg_audio": (
            IEEGAudioForRetrieval(IEEGAudioConfig(participants={"s1": 5}, **SMALL)),
            IEEGAudioProcessor(ieeg),
        ),
        "brain_tuned": (
            BrainTunedForVoxelPrediction(BrainTunedConfig(body_config=BODY, num_voxels=7, clip_s=2.0)),
            StoryFeatureExtractor(clip_s=2.0),
        ),
        "end_to_end": end_to_end(),
    }  # fmt: skip
    for name, (model, processor) in models.items():
        model.save_pretrained(root / name)
        processor.save_pretrained(root / name)
    words = {"hello": "HH AH L OW", "you": "Y UW"}
    decoder = BeamSearchDecoder(Lexicon.from_words(words), build_ngram_lm(["hello you", "you"], order=2), beam_size=8)
    BITProcessorWithDecoder(models["ctc"][1], decoder).save_pretrained(root / "ctc")
    # What a training run leaves behind, and nobody should download.
    (root / "ctc" / "training_args.bin").write_bytes(b"a pickle")
    (root / "ctc" / "trainer_state.json").write_text("{}")
    return list(models)
