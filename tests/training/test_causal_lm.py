"""Text for language models: what is held out stays out, and tokens survive saving."""

import lzma

import numpy as np
import pytest
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from bit_speech.training import (
    NUM_PARTS,
    PackedSentences,
    read_sentences,
    select_sentences,
    sentence_part,
    train_tokenizer,
)

SENTENCES = [f"Sentence number {word}." for word in ("one", "two", "three", "four", "five", "six", "seven", "eight")]


def test_a_sentence_has_the_same_part_however_it_is_written():
    assert sentence_part("Well-known, isn't it?") == sentence_part("well known isn't it")
    parts = {sentence_part(f"sentence {number}") for number in range(400)}
    assert parts == set(range(NUM_PARTS))


def test_parts_are_disjoint_and_complete():
    halves = [select_sentences(SENTENCES, parts=parts) for parts in (range(10), range(10, NUM_PARTS))]
    assert sorted(halves[0] + halves[1]) == sorted(select_sentences(SENTENCES))
    assert not set(halves[0]) & set(halves[1])


def test_excluded_sentences_are_left_out_however_they_are_written():
    kept = select_sentences(["Go on!", "go  on", "Go home."], exclude=["GO ON"])
    assert kept == ["go home"]
    assert select_sentences(["Go home."], normalization="none") == ["Go home."]


def test_text_is_read_plain_and_compressed(tmp_path):
    with lzma.open(tmp_path / "a.txt.xz", "wt", encoding="utf-8") as file:
        file.write("one\n\n two \n")
    assert read_sentences(tmp_path / "a.txt.xz") == ["one", "two"]
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="UTF-8"):
        read_sentences(tmp_path / "bad.txt")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ValueError, match="no sentence"):
        read_sentences(tmp_path / "empty.txt")
    with pytest.raises(FileNotFoundError):
        read_sentences(tmp_path / "none.txt")


@pytest.mark.parametrize("text", ["the cat's mat", "Zürich, 7:05!\n\n x", "  two  spaces"])
def test_tokens_are_the_same_after_saving_with_the_model(text, tmp_path):
    # AutoTokenizer looks at the model's type before it looks at the tokenizer's own file.
    tokenizer = train_tokenizer(["the cat sat on the cat's mat"] * 3, 280)
    config = Qwen2Config(vocab_size=280, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    config.num_key_value_heads = 1
    Qwen2ForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer(text)["input_ids"]
    assert loaded(text)["input_ids"] == ids and ids[0] == loaded.bos_token_id == 1
    assert loaded.decode(ids, skip_special_tokens=True) == text
    assert (loaded.eos_token_id, loaded.pad_token_id) == (2, 0)


def test_a_vocabulary_without_room_for_all_bytes_is_refused():
    with pytest.raises(ValueError, match="vocab_size is 100"):
        train_tokenizer(["a"], 100)


def test_blocks_hold_whole_sentences_between_their_markers():
    tokenizer = train_tokenizer(SENTENCES, 300)
    blocks = PackedSentences(SENTENCES, tokenizer, block_size=8)
    stream = np.concatenate([block["input_ids"].numpy() for block in blocks])
    expected = [token for text in SENTENCES for token in (*tokenizer(text)["input_ids"], 2)]
    assert stream.tolist() == expected[: len(stream)] and len(expected) - len(stream) < 8
    shuffled = PackedSentences(SENTENCES, tokenizer, block_size=8, seed=1)
    again = PackedSentences(SENTENCES, tokenizer, block_size=8, seed=1)
    assert (shuffled.blocks == again.blocks).all() and not (shuffled.blocks == blocks.blocks).all()
    with pytest.raises(ValueError, match="less than one block"):
        PackedSentences(SENTENCES[:1], tokenizer, block_size=500)
