"""Meaning by mean token embeddings of a text model."""

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from bit_speech.evaluation import embedding_similarity, sentence_embeddings


class Letters:
    """A tokenizer with one token a word."""

    def __call__(self, text, add_special_tokens):
        return {"input_ids": [sum(map(ord, word)) % 30 for word in text.split()]}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1,
            intermediate_size=8,
        )
    )  # fmt: skip


def test_a_sentence_is_the_mean_of_its_tokens_whatever_the_batch(model):
    table = model.get_input_embeddings().weight.detach().double().numpy()
    tokens = Letters()("go on now", False)["input_ids"]
    found = sentence_embeddings(["go on now", "", "go"], model, Letters(), layer=0)
    assert np.allclose(found[0], table[tokens].mean(axis=0))
    assert not found[1].any()
    deep = sentence_embeddings(["go on now", "go"], model, Letters(), batch_size=2)
    alone = sentence_embeddings(["go on now", "go"], model, Letters(), batch_size=1)
    assert np.allclose(deep, alone, atol=1e-6)


def test_perfect_sentences_score_one_and_others_between_chance_and_one(model):
    references = ["go on now", "see you", "what is it", "not here"]
    perfect = embedding_similarity(references, references, model, Letters(), layer=0)
    assert perfect.mean == pytest.approx(1) and perfect.rescaled == pytest.approx(1)
    assert perfect.shuffled < 0.9
    worse = embedding_similarity(references, ["go on then", "see you", "what", ""], model, Letters(), layer=0)
    assert worse.each[1] == pytest.approx(1) and worse.each[3] == 0
    assert worse.low <= worse.mean <= worse.high < 1
    assert "each" not in worse.to_dict()


def test_lists_that_differ_are_refused(model):
    with pytest.raises(ValueError, match="2 references, 1 predictions"):
        embedding_similarity(["a", "b"], ["a"], model, Letters())
    with pytest.raises(ValueError, match="one string"):
        sentence_embeddings("a b", model, Letters())
