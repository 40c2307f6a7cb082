"""Prompts and answers of the end-to-end decoder: what is read, what is learned, and what never is."""

import inspect

import numpy as np
import pytest
from transformers import AutoProcessor

from bit_speech import BITFeatureExtractor, BITLLMProcessor
from bit_speech.evaluation import normalize_text
from bit_speech.training import train_tokenizer
from processing_bit.processing_bit_llm import NEURAL_TOKEN, PAPER_PROMPT

TEMPLATE = (
    "{% for message in messages %}<s>{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)
SENTENCES = ["Bring it closer.", "Go on!", "I'm well-known, I think"]


def tokenizer():
    return train_tokenizer([PAPER_PROMPT, *SENTENCES] * 4, 300)


def processor(**settings):
    extractor = BITFeatureExtractor(participants={"t15": 4}, sessions=["t15.a", "t15.b"], normalization="none")
    return BITLLMProcessor(extractor, tokenizer(), **settings)


def trials(*bins):
    generator = np.random.default_rng(0)
    return [generator.normal(size=(count, 4)).astype(np.float32) for count in bins]


def decode(made, ids):
    return made.tokenizer.decode(ids)


def test_a_training_row_is_the_papers_prompt_with_a_place_for_each_patch_and_the_answer():
    made = processor()
    batch = made(neural=trials(33, 20, 58), text=SENTENCES, session_id="t15.a")
    text = decode(made, batch["input_ids"][1][batch["attention_mask"][1]])
    before, after = PAPER_PROMPT.split("#")
    assert text == f"<s>{before}{NEURAL_TOKEN * 4}{after}go on</s>"
    places = (batch["input_ids"] == made.neural_token_id).sum(axis=1)
    assert places.tolist() == [6, 4, 11]


def test_only_the_answer_with_its_end_is_learned_and_only_the_sentence_is_contrasted():
    made = processor()
    batch = made(neural=trials(33, 20, 58), text=SENTENCES, session_id="t15.a")
    for row, sentence in enumerate(["bring it closer", "go on", "i'm well-known i think"]):
        labels = batch["labels"][row]
        assert decode(made, labels[labels != -100]) == f"{sentence}</s>"
        assert decode(made, batch["input_ids"][row][batch["sentence_mask"][row]]) == sentence
        learned = labels != -100
        assert (batch["input_ids"][row][learned] == labels[learned]).all()
    assert batch["attention_mask"].argmin(axis=1).tolist()[1] > 0  # padded on the right


def test_a_batch_to_generate_from_has_prompts_on_the_right_and_takes_no_text():
    made = processor()
    batch = made.for_generation(neural=trials(33, 20), session_id=["t15.b", "t15.a"], return_tensors="pt")
    assert set(batch) == {
        "input_ids",
        "attention_mask",
        "input_features",
        "input_features_mask",
        "participant_index",
        "session_index",
    }
    assert batch["attention_mask"][:, -1].all() and not batch["attention_mask"][1, 0]
    assert decode(made, batch["input_ids"][0]).endswith("English sentence:")
    assert batch["session_index"].tolist() == [1, 0]
    assert "text" not in inspect.signature(made.for_generation).parameters
    with pytest.raises(TypeError):
        made.for_generation(neural=trials(33), text=["go on"], session_id="t15.a")


def test_the_number_of_places_follows_patches_stride_and_stacking():
    assert [processor(stacking=3).num_neural_tokens(bins) for bins in (4, 5, 15, 20, 30)] == [0, 1, 1, 2, 2]
    made = processor(patch_size=6, patch_stride=2)
    assert [made.num_neural_tokens(bins) for bins in (5, 6, 8, 11)] == [0, 1, 2, 3]


def test_the_prompt_and_everything_else_is_saved_with_the_processor(tmp_path):
    made = processor(prompt="listen: # and write:", patch_size=6, patch_stride=3, stacking=2, normalization="none")
    made.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is BITLLMProcessor
    for name in ("prompt", "patch_size", "patch_stride", "stacking", "normalization", "neural_token_id"):
        assert getattr(again, name) == getattr(made, name), name
    for new, old in zip(*(p(trials(40, 21), ["Go on!"] * 2, session_id="t15.b").values() for p in (again, made))):
        np.testing.assert_array_equal(new, old)


def test_a_chat_template_makes_the_prompt_a_users_turn(tmp_path):
    made = processor(use_chat_template=True, chat_template=TEMPLATE, prompt="# What was said?")
    batch = made(neural=trials(10), text=["Go on!"], session_id="t15.a")
    expected = f"<s>user: {NEURAL_TOKEN * 2} What was said?\n<s>assistant: go on</s>"
    assert decode(made, batch["input_ids"][0]) == expected
    made.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    np.testing.assert_array_equal(
        again.for_generation(trials(10), session_id="t15.a")["input_ids"],
        made.for_generation(trials(10), session_id="t15.a")["input_ids"],
    )


@pytest.mark.parametrize("text", [*SENTENCES, "Well -- it 's  2 late!", "co-op- yes", "--a"])
def test_sentences_are_written_as_the_benchmark_scores_them(text):
    assert processor().normalize(text) == normalize_text(text, "brain_to_text_25")


def test_generated_tokens_become_text_up_to_the_end():
    made = processor()
    rows = [[1, 5, *answer, 9, 9] for answer in made.encode_answers(["go on", "bring it closer"])]
    width = max(map(len, rows))
    rows = [row + [made.pad_token_id] * (width - len(row)) for row in rows]
    assert made.decode_answers(np.array(rows), prompt_length=2) == ["go on", "bring it closer"]


def test_phonemes_become_labels_of_the_auxiliary_loss():
    batch = processor()(
        trials(30, 30), ["hi", "go on"], phonemes=["HH AY SIL", "G OW SIL AA N SIL"], session_id="t15.a"
    )
    assert batch["ctc_labels"].tolist() == [[16, 6, 40, -100, -100, -100], [15, 25, 40, 1, 23, 40]]


def test_the_padding_of_a_tokenizer_without_one_is_its_end():
    bare = tokenizer()
    bare.pad_token = None
    made = BITLLMProcessor(BITFeatureExtractor(participants={"t15": 4}, normalization="none"), bare)
    assert made.pad_token_id == bare.eos_token_id
    assert made(trials(30, 10), ["hi", "go on"])["input_ids"].shape[0] == 2


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"prompt": "no place"}, "0 times '#'"),
        ({"prompt": "# and #"}, "2 times '#'"),
        ({"normalization": "upper"}, "upper"),
        ({"patch_size": 0}, "patch_size is 0"),
        ({"stacking": 1.5}, "stacking is 1.5"),
        ({"use_chat_template": True}, "no chat template"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        processor(**settings)


def test_trials_that_cannot_be_used_are_named():
    made = processor()
    with pytest.raises(ValueError, match="trial 1 has 4 bins"):
        made.for_generation(trials(20, 4), session_id="t15.a")
    with pytest.raises(ValueError, match="trial 1: '...' holds no words"):
        made(trials(20, 20), ["hi", "..."], session_id="t15.a")
    with pytest.raises(ValueError, match="1 entries for 2 trials"):
        made(trials(20, 20), ["hi"], session_id="t15.a")
    with pytest.raises(ValueError, match="`text` is missing"):
        made(trials(20), session_id="t15.a")
    with pytest.raises(ValueError, match="session 't15.c' is unknown"):
        made(trials(20), ["hi"], session_id="t15.c")
    with pytest.raises(ValueError, match="tokenizer"):
        BITLLMProcessor(BITFeatureExtractor())
