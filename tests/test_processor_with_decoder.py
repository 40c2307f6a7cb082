"""One folder holds model, processor and decoder, and gives sentences with their times."""

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from bit_speech import BITConfig, BITFeatureExtractor, BITForCTC, BITProcessor, PhonemeTokenizer
from bit_speech.decoding import BeamSearchDecoder, CausalLMRescorer, Lexicon, RescoringWeights, build_ngram_lm, rescore
from bit_speech.processor_with_decoder import BITProcessorWithDecoder
from bit_speech.training import train_tokenizer

LEXICON = Lexicon.from_words({"be": "B IY", "tea": "T IY"})
B, IY, SIL, T = 7, 18, 40, 31


def logits(path):
    return 6 * np.eye(41, dtype=np.float32)[path]


def small_config():
    return BITConfig(
        participants={"t15": 4}, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )


@pytest.fixture(scope="module")
def processor():
    decoder = BeamSearchDecoder(LEXICON, build_ngram_lm(["be tea", "tea"], order=2), lattice_beam=20.0)
    return BITProcessorWithDecoder(BITProcessor(BITFeatureExtractor(participants={"t15": 4})), decoder, 0.1)


def test_a_batch_of_scores_becomes_sentences_with_times(processor):
    path = [0, B, IY, SIL, 0, 0, T, IY, SIL]
    batch = torch.tensor(np.stack([logits(path), logits(path[::-1])]))
    mask = torch.zeros(2, 9, dtype=torch.bool)
    mask[0] = True
    found = processor.batch_decode(batch, mask)
    assert found.text == ["be tea", ""]
    first, second = found.word_times[0]
    assert (first["word"], first["start_time"], first["end_time"]) == ("be", pytest.approx(0.1), pytest.approx(0.3))
    assert (second["word"], second["start_time"]) == ("tea", pytest.approx(0.6))
    assert 0 < first["confidence"] <= 1
    assert found.score[0] == found.nbest[0][0].score
    assert len(found.nbest[0]) > 1


def test_frames_after_a_trials_end_are_not_read(processor):
    path = [0, B, IY, SIL, 0, T, IY, SIL]
    mask = np.arange(8)[None] < 4
    assert processor.batch_decode(logits(path)[None], mask).text == ["be"]
    assert processor.batch_decode(logits(path)[None]).text == ["be tea"]
    assert processor.decode(logits(path)).text == ["be tea"]


def test_everything_loads_from_one_folder_beside_the_model(processor, tmp_path):
    config = small_config()
    BITForCTC(config).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = BITProcessorWithDecoder.from_pretrained(tmp_path)
    path = [0, B, IY, SIL, 0, 0, T, IY, SIL]
    assert loaded.decode(logits(path)).nbest == processor.decode(logits(path)).nbest
    assert loaded.seconds_per_frame == pytest.approx(config.patch_stride * 0.02)
    assert loaded(np.eye(4))["input_features"].shape == (1, 4, 4)
    # The stock classes read the same folder.
    assert isinstance(BITProcessor.from_pretrained(tmp_path).tokenizer, PhonemeTokenizer)
    assert BITForCTC.from_pretrained(tmp_path).config.hidden_size == 16


def test_the_second_pass_is_applied_and_travels_by_its_name(processor, tmp_path):
    tokenizer = train_tokenizer(["be tea"] * 3, 280)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=280, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1,
        intermediate_size=8, initializer_range=1.0,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    weights = RescoringWeights(llm_weight=5.0, lm_weight=0.5)
    both = BITProcessorWithDecoder(
        processor.processor, processor.decoder, rescorer=(CausalLMRescorer(model, tokenizer), weights)
    )
    with pytest.raises(ValueError, match="has no name"):
        both.save_pretrained(tmp_path / "no")
    model.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    scorer = CausalLMRescorer.from_pretrained(str(tmp_path / "lm"))
    both = BITProcessorWithDecoder(processor.processor, processor.decoder, rescorer=(scorer, weights))
    BITForCTC(small_config()).save_pretrained(tmp_path / "model")
    both.save_pretrained(tmp_path / "model")
    scores = logits([0, B, IY, SIL, 0, 0, T, IY, SIL])
    loaded = BITProcessorWithDecoder.from_pretrained(tmp_path / "model")
    found, expected = loaded.decode(scores), rescore(processor.decode(scores).nbest[0], scorer, weights)
    assert found.text == [expected[0].text] and found.score[0] == pytest.approx(expected[0].score, abs=1e-4)
    assert BITProcessorWithDecoder.from_pretrained(tmp_path / "model", rescore=False).rescorer is None


def test_input_without_sense_is_refused(processor):
    with pytest.raises(ValueError, match="shape"):
        processor.batch_decode(logits([0, B]))
    with pytest.raises(ValueError, match="one mask value per frame"):
        processor.batch_decode([logits([0, B])], [[True]])
    with pytest.raises(ValueError, match="not finite"):
        processor.decode(np.full((2, 41), np.nan))
    with pytest.raises(ValueError, match="class order"):
        BITProcessorWithDecoder(processor.processor, processor.decoder.with_settings(class_order="lm"))
