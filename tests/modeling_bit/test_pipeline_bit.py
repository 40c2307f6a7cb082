"""`pipeline("neural-to-text")` as it is published: it reads trials from saved folders without this package."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCTC, AutoProcessor

from bit_speech import BITFeatureExtractor, BITLLMProcessor, BITProcessor, PhonemeTokenizer
from bit_speech.training import train_tokenizer
from modeling_bit.modeling_bit_llm import BITForConditionalGeneration
from modeling_bit.pipeline_bit import NeuralToTextPipeline

from .small_models import bit
from .test_modeling_bit_llm import TEXT, llm


def trials():
    generator = np.random.default_rng(0)
    return [generator.normal(size=(count, 6)).astype(np.float32) for count in (43, 30)]


def extractor():
    return BITFeatureExtractor(participants={"t15": 6}, normalization="none")


@pytest.fixture
def end_to_end(tmp_path):
    processor = BITLLMProcessor(extractor(), train_tokenizer(["go on", "decode"] * 4, 270))
    model = llm(text_config={**TEXT, "vocab_size": 270}, neural_token_id=processor.neural_token_id)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    return tmp_path, model, processor


def test_an_end_to_end_folder_writes_sentences(end_to_end):
    folder, model, processor = end_to_end
    loaded = BITForConditionalGeneration.from_pretrained(folder)
    read = NeuralToTextPipeline(model=loaded, processor=BITLLMProcessor.from_pretrained(folder), max_new_tokens=5)
    found = read(trials(), num_beams=1)
    for trial, answer in zip(trials(), found):
        inputs = processor.for_generation([trial], return_tensors="pt")
        ids = model.generate(**inputs, max_new_tokens=5, do_sample=False)
        assert answer == {"text": processor.decode_answers(ids, inputs["input_ids"].shape[1])[0]}
    several = read(trials()[0], num_best=2)
    assert several["nbest"][0] == {"text": several["text"], "score": several["score"]}
    assert [one["score"] for one in several["nbest"]] == sorted(
        (one["score"] for one in several["nbest"]), reverse=True
    )
    sampled = read(trials()[0], num_best=3, do_sample=True, top_p=0.9, temperature=0.7)
    assert len(sampled["nbest"]) == 3 and "score" not in sampled


def test_a_ctc_folder_gives_its_best_phonemes_of_arrays_and_of_trials(tmp_path):
    model, processor = bit(), BITProcessor(extractor(), PhonemeTokenizer())
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    read = NeuralToTextPipeline(
        model=AutoModelForCTC.from_pretrained(tmp_path), processor=AutoProcessor.from_pretrained(tmp_path)
    )
    found = read(trials(), participant_id="t15")
    for trial, answer in zip(trials(), found):
        with torch.no_grad():
            logits = model.eval()(**processor([trial], return_tensors="pt")).logits
        assert answer == {"text": processor.decode_ctc(logits[0].argmax(-1))}
    rows = [{"features": trial, "participant_id": "t15", "text": "no model sees it"} for trial in trials()]
    assert read(rows) == found


def test_a_saved_folder_says_which_code_reads_it_and_other_folders_do_not(end_to_end, tmp_path):
    folder = end_to_end[0]
    config = json.loads((folder / "config.json").read_text())
    assert config["custom_pipelines"]["neural-to-text"]["impl"] == "pipeline_bit.NeuralToTextPipeline"
    assert (folder / "pipeline_bit.py").is_file()
    bit().encoder.save_pretrained(tmp_path / "encoder")
    assert "custom_pipelines" not in json.loads((tmp_path / "encoder" / "config.json").read_text())
