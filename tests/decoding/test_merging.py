"""The merger's prompt, its free-running answers, and its choice among the sentences of a confusion network."""

import math

import pytest
import torch

from bit_speech.decoding import LLMMerger, confusion_network, merger_prompt
from bit_speech.decoding.rescoring import score_continuations

from .small_language_models import small_model, small_tokenizer

CANDIDATES = ["the cat sat", "the rat sat", "the cat sat", "a cat saw"]
CHAT = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer()


@pytest.fixture
def merger(tokenizer):
    return LLMMerger(small_model(), tokenizer, instruction="")


def test_the_prompt_counts_votes_and_shows_the_vote():
    prompt = merger_prompt(CANDIDATES, instruction="merge", max_candidates=2)
    assert prompt == "merge\n\ncandidates:\nthe cat sat (2)\nthe rat sat\nvote:\nthe cat sat\nsentence:\n"


def test_the_prompt_depends_on_the_candidates_alone():
    assert merger_prompt(["a  b", "c"]) == merger_prompt(["a b", "c "])
    with pytest.raises(ValueError, match="no candidate"):
        merger_prompt([])


def by_hand(model, prefix, limit):
    """Greedy writing without cache or batch."""
    tokens = list(prefix)
    for _ in range(limit):
        with torch.no_grad():
            tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
        if tokens[-1] == 2:
            return tokens[len(prefix) : -1]
    return None


@pytest.mark.parametrize("batch_size", [1, 3])
def test_answers_are_greedy_and_do_not_depend_on_the_batch(merger, tokenizer, batch_size):
    merger.batch_size = batch_size
    merger.model.get_input_embeddings().weight.data *= 3
    lists = [CANDIDATES, ["a"], ["it", "i saw it on the mat"], ["a rat", "the rat"]]
    expected = []
    for candidates in lists:
        limit = 2 * max(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in candidates) + 8
        ids = by_hand(merger.model, tokenizer(merger_prompt(candidates, ""))["input_ids"], limit)
        vote = confusion_network(candidates).best()
        expected.append(vote if ids is None else first_line(tokenizer.decode(ids, skip_special_tokens=True)))
    assert merger.merge(lists) == expected


def first_line(text):
    return " ".join(text.strip().split("\n")[0].split())


def test_an_answer_that_never_ends_is_replaced_by_the_vote(merger):
    merger.model.generate = lambda input_ids, **_: torch.cat([input_ids, torch.full((len(input_ids), 5), 70)], dim=1)
    assert merger.merge([CANDIDATES]) == ["the cat sat"]
    merger.model.generate = lambda input_ids, **_: torch.cat([input_ids, torch.tensor([[67, 2]])], dim=1)
    assert merger.merge([CANDIDATES]) == [merger.tokenizer.decode([67])]


def test_the_choice_adds_up_model_and_votes(merger, tokenizer):
    ((texts, scores, votes),) = merger.weigh_up([CANDIDATES])
    prefix = tokenizer(merger_prompt(CANDIDATES, ""))["input_ids"]
    rows = [[*tokenizer(text, add_special_tokens=False)["input_ids"], 2] for text in texts]
    assert scores == pytest.approx(score_continuations(merger.model, prefix, rows), abs=1e-4)
    assert dict(zip(texts, votes)) == pytest.approx(dict(confusion_network(CANDIDATES).sentences(30)))
    merger.vote_weight = 1000.0
    assert merger.choose([CANDIDATES]) == ["the cat sat"]
    merger.vote_weight = 0.0
    assert merger.choose([CANDIDATES]) == [texts[int(scores.argmax())]]


def test_the_choice_can_be_among_more_than_the_candidates(merger):
    network = confusion_network([*CANDIDATES, "the mat sat"])
    assert "the mat sat" in merger.weigh_up([CANDIDATES], [network])[0][0]
    with pytest.raises(ValueError, match="1 lists of candidates but 2"):
        merger.choose([CANDIDATES], [network, network])


def test_a_chat_template_frames_the_prompt_once(tokenizer):
    chatty = small_tokenizer()
    chatty.chat_template = CHAT
    merger = LLMMerger(small_model(), chatty, instruction="merge")
    prompt = merger_prompt(CANDIDATES, "merge")
    assert merger.prompt(CANDIDATES) == [{"role": "user", "content": prompt}]
    framed = tokenizer(f"[user] {prompt}\n[assistant] ", add_special_tokens=False)["input_ids"]
    assert merger._prefix(CANDIDATES) == [1, *framed]
    assert isinstance(merger.merge([CANDIDATES])[0], str)


def test_a_saved_merger_answers_the_same(merger, tmp_path):
    merger.vote_weight = 0.3
    loaded = LLMMerger.from_pretrained(str(merger.save_pretrained(tmp_path)))
    assert (loaded.instruction, loaded.vote_weight) == ("", 0.3)
    assert loaded.merge([CANDIDATES]) == merger.merge([CANDIDATES])
    assert LLMMerger.from_pretrained(str(tmp_path), instruction="other").instruction == "other"
    (tmp_path / "merger_config.json").write_text('{"format": "else"}')
    with pytest.raises(ValueError, match="'else'"):
        LLMMerger.from_pretrained(str(tmp_path))


def test_settings_without_sense_are_refused(tokenizer):
    for settings in ({"max_candidates": 0}, {"batch_size": 0}, {"vote_weight": math.nan}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            LLMMerger(small_model(), tokenizer, **settings)
