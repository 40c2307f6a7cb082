"""The end-to-end decoder keeps the promises of the house, and writes sentences in every way."""

import copy
import itertools

import pytest
import torch
from torch.nn import functional as F

from bit_speech import BITForConditionalGeneration, BITLLMConfig
from modeling_bit.losses_bit import contrastive_loss, masked_mean
from modeling_bit.projectors_bit import stack_frames

PLACE = 40
ENCODER = {
    "participants": {"t15": 6},
    "hidden_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "embedding_dropout": 0.0,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
}
TEXT = {
    "model_type": "qwen2",
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 24,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": True,
}
KINDS = {
    "mlp": {},
    "linear": {"projector_type": "linear"},
    "cross_attention": {"projector_type": "cross_attention", "projector_hidden_size": 8, "projector_dropout": 0.0},
    "stacked": {"stacking": 3},
    "audio": {"modality": "audio", "audio_hidden_size": 10},
    "with ctc": {"ctc_weight": 0.5},
    "everything pooled": {"contrastive_pooling": "everything"},
    "qwen3": {"text_config": {**TEXT, "model_type": "qwen3", "head_dim": 8, "tie_word_embeddings": False}},
}


def llm(encoder=None, **settings):
    torch.manual_seed(0)
    settings = {"text_config": TEXT, "contrastive_size": 8, **settings}
    return BITForConditionalGeneration(BITLLMConfig(encoder_config={**ENCODER, **(encoder or {})}, **settings)).eval()


def batch(bins=(43, 20, 31), answers=((5, 6, 2), (7, 2), (8, 9, 10, 2)), stacking=1, left=False, padding=0.0):
    """Trials with prompt `3 PLACES 4` and their answers; with `left`, the prompts alone."""
    generator = torch.Generator().manual_seed(1)
    trials = [torch.randn(count, 6, generator=generator) for count in bins]
    features = torch.full((len(bins), max(bins), 6), padding)
    features_mask = torch.zeros(len(bins), max(bins), dtype=torch.bool)
    rows = []
    for row, trial in enumerate(trials):
        features[row, : len(trial)], features_mask[row, : len(trial)] = trial, True
        places = -(-(len(trial) // 5) // stacking)
        rows.append([3, *[PLACE] * places, 4])
    made = {"input_features": features, "input_features_mask": features_mask}
    width = max(len(row) + (0 if left else len(answer)) for row, answer in zip(rows, answers))
    ids, mask = torch.zeros(len(bins), width, dtype=torch.long), torch.zeros(len(bins), width, dtype=torch.bool)
    labels, sentence = torch.full_like(ids, -100), torch.zeros_like(mask)
    for i, (row, answer) in enumerate(zip(rows, answers)):
        if left:
            ids[i, width - len(row) :], mask[i, width - len(row) :] = torch.tensor(row), True
            continue
        end = len(row) + len(answer)
        ids[i, :end], mask[i, :end] = torch.tensor([*row, *answer]), True
        labels[i, len(row) : end] = torch.tensor(answer)
        sentence[i, len(row) : end - 1] = True
    made |= {"input_ids": ids, "attention_mask": mask}
    if not left:
        made |= {"labels": labels, "sentence_mask": sentence, "ctc_labels": torch.tensor([[3, 7, -100]] * len(bins))}
    return made


def stacking_of(kind):
    return KINDS[kind].get("stacking", 1)


def one(made, row):
    """One trial of a batch, without its padding."""
    bins, tokens = int(made["input_features_mask"][row].sum()), made["attention_mask"][row]
    cut = {key: value[row : row + 1, :bins] for key, value in made.items() if key.startswith("input_features")}
    text = ("input_ids", "attention_mask", "labels", "sentence_mask")
    cut |= {key: made[key][row : row + 1, tokens] for key in text if key in made}
    return cut | {"ctc_labels": made["ctc_labels"][row : row + 1]} if "ctc_labels" in made else cut


@pytest.mark.parametrize("kind", KINDS)
def test_a_trial_does_not_depend_on_its_batch_and_padding_changes_nothing(kind):
    model, made = llm(**KINDS[kind]), batch(stacking=stacking_of(kind), padding=float("nan"))
    with torch.no_grad():
        together = model(**made)
        for row in range(3):
            alone = model(**one(made, row))
            logits = together.logits[row][made["attention_mask"][row]]
            torch.testing.assert_close(logits, alone.logits[0], atol=1e-5, rtol=1e-5)
            if kind == "everything pooled":  # the published defect: its vectors do depend on the padding
                continue
            torch.testing.assert_close(together.text_embeds[row], alone.text_embeds[0], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(together.neural_embeds[row], alone.neural_embeds[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_trainable_parameter(kind):
    model = llm(**KINDS[kind]).train()
    output = model(**batch(stacking=stacking_of(kind)))
    loss = output.loss + contrastive_loss(output.neural_embeds, output.text_embeds, output.logit_scale)
    loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and bool((parameter.grad != 0).any()), name
    frozen = {name.split(".")[0] for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen <= {"encoder", "ctc_head"}


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_the_model_is_the_same(kind, tmp_path):
    model, made = llm(**KINDS[kind]), batch(stacking=stacking_of(kind))
    model.save_pretrained(tmp_path)
    again, report = BITForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    with torch.no_grad():
        assert torch.equal(model(**made).logits, again(**made).logits)


def test_what_a_checkpoint_lacks_gets_initial_values_and_no_stray_memory(tmp_path):
    model = llm(contrastive_weight=0.0)
    model.save_pretrained(tmp_path)
    more = {"contrastive_weight": 1.0, "projector_type": "cross_attention", "projector_hidden_size": 8}
    again = BITForConditionalGeneration.from_pretrained(tmp_path, **more)
    assert float(again.aligner.log_scale.detach().exp()) == pytest.approx(10.0)
    assert float(again.neural_projector.residual_scale.detach()) == 0.5
    for name, parameter in again.named_parameters():
        assert bool(parameter.isfinite().all()) and float(parameter.detach().abs().max()) < 5, name


def test_the_loss_is_the_cross_entropy_of_the_answers_tokens_alone():
    model, made = llm(), batch()
    output = model(**made)
    picked = []
    for row, column in itertools.product(range(3), range(1, made["labels"].shape[1])):
        if made["labels"][row, column] != -100:
            picked.append(output.logits[row, column - 1].log_softmax(-1)[made["labels"][row, column]])
    assert len(picked) == 9
    torch.testing.assert_close(output.loss, -torch.stack(picked).mean())
    changed = {**made, "input_ids": made["input_ids"].clone()}
    changed["input_ids"][:, 0] = 20  # another prompt, the same labels
    assert model(**changed).loss != output.loss


def test_scores_of_the_last_positions_give_the_same_loss_and_too_few_are_refused():
    model, made = llm(), batch()
    first = int((made["labels"] != -100).any(0).int().argmax())
    kept = made["labels"].shape[1] - first + 1
    short = model(**made, logits_to_keep=kept)
    assert short.logits.shape[1] == kept
    torch.testing.assert_close(short.loss, model(**made).loss)
    with pytest.raises(ValueError, match="leaves labels out"):
        model(**made, logits_to_keep=kept - 1)
    with pytest.raises(ValueError, match="as a number"):
        model(**made, logits_to_keep=torch.arange(3))


def test_the_contrasted_vectors_are_means_of_real_neural_tokens_and_of_the_sentence_alone():
    model, made = llm(), batch()
    output = model(**made)
    tokens, mask, _ = model.encode_neural(made["input_features"], made["input_features_mask"])
    for row, (frames, answer) in enumerate([(8, [5, 6]), (4, [7]), (6, [8, 9, 10])]):
        assert int(mask[row].sum()) == frames
        torch.testing.assert_close(output.neural_embeds[row], model.aligner.neural(tokens[row, :frames].mean(0)))
        words = model.get_input_embeddings()(torch.tensor(answer)).mean(0)
        torch.testing.assert_close(output.text_embeds[row], model.aligner.text(words))
    pooled = llm(contrastive_pooling="everything")(**made)
    assert not torch.allclose(pooled.text_embeds, output.text_embeds, atol=1e-3)


def test_only_the_contrasted_vectors_need_no_language_model():
    model, made = llm(), batch()
    whole = model(**made)
    model.language_model.model.layers = torch.nn.ModuleList()  # would change the logits
    alone = model(**made, embeds_only=True)
    assert alone.logits is None and alone.loss is None
    assert torch.equal(alone.neural_embeds, whole.neural_embeds) and torch.equal(alone.text_embeds, whole.text_embeds)


def test_joined_frames_keep_the_end_of_a_sentence_and_no_padding():
    frames = torch.arange(10.0).view(1, 5, 2).repeat(2, 1, 1)
    joined, mask = stack_frames(frames, torch.tensor([[True] * 5, [True] * 3 + [False] * 2]), 2)
    assert joined[0].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 0]]
    assert joined[1].tolist() == [[0, 1, 2, 3], [4, 5, 0, 0], [0, 0, 0, 0]]
    assert mask.tolist() == [[True, True, True], [True, True, False]]


def test_cross_attention_reads_the_embedding_table_and_its_map_is_what_it_uses():
    model, made = llm(**KINDS["cross_attention"]), batch()
    frames = model.encoder(made["input_features"], attention_mask=made["input_features_mask"]).last_hidden_state
    projector, table = model.neural_projector, model._text_table()
    attention = projector.attention(frames, table)
    assert attention.shape == (3, 8, 40)
    torch.testing.assert_close(attention.sum(-1), torch.ones(3, 8))
    read = attention @ projector.value(projector.text_norm(table))
    expected = projector.output(projector.query(projector.neural_norm(frames)) + 0.5 * read)
    torch.testing.assert_close(projector(frames, table), expected)
    with pytest.raises(ValueError, match="text_table"):
        projector(frames)


def test_in_audio_modality_the_audio_models_own_projector_leads_into_the_text():
    model, made = llm(**KINDS["audio"]), batch()
    frames = model.encoder(made["input_features"], attention_mask=made["input_features_mask"]).last_hidden_state
    hidden = model.neural_projector(frames)
    assert hidden.shape[-1] == 10
    tokens, _, _ = model.encode_neural(made["input_features"], made["input_features_mask"])
    torch.testing.assert_close(tokens, hidden @ model.multi_modal_projector.weight.T + model.multi_modal_projector.bias)


def test_the_auxiliary_ctc_loss_is_added_with_its_weight():
    model, made = llm(ctc_weight=0.5), batch()
    output = model(**made)
    log_probs = output.ctc_logits.log_softmax(-1).transpose(0, 1)
    labels = torch.tensor([[3, 7]] * 3)
    expected = F.ctc_loss(log_probs, labels, torch.tensor([8, 4, 6]), torch.tensor([2, 2, 2]))
    torch.testing.assert_close(output.ctc_loss, expected)
    torch.testing.assert_close(output.loss, output.text_loss + 0.5 * expected)
    with pytest.raises(ValueError, match="ctc_labels"):
        model(**{**made, "ctc_labels": None})


# ---- generation ----


def by_hand(model, made, steps):
    """Greedy generation without a cache, one trial after the other."""
    written = []
    for row in range(len(made["input_ids"])):
        trial = one(made, row)
        for _ in range(steps):
            with torch.no_grad():
                best = model(**trial).logits[:, -1].argmax(-1, keepdim=True)
            trial["input_ids"] = torch.cat([trial["input_ids"], best], 1)
            trial["attention_mask"] = torch.ones_like(trial["input_ids"])
        written.append(trial["input_ids"][0, -steps:].tolist())
    return written


@pytest.mark.parametrize("kind", ["mlp", "stacked", "audio", "cross_attention", "qwen3"])
def test_greedy_generation_in_a_padded_batch_is_the_loop_by_hand(kind):
    model, made = llm(**KINDS[kind]), batch(stacking=stacking_of(kind), left=True)
    model.generation_config.eos_token_id = None
    found = model.generate(**made, max_new_tokens=4, do_sample=False)[:, made["input_ids"].shape[1] :]
    assert found.tolist() == by_hand(model, made, 4)


@pytest.mark.parametrize("ways", [{}, {"num_beams": 2}, {"suppress_tokens": [5]}])
def test_the_marker_of_neural_tokens_is_never_written_where_the_table_has_a_row_for_it(ways):
    text = {**TEXT, "vocab_size": 48, "tie_word_embeddings": False}
    model, prompts = llm(text_config=text, neural_token_id=PLACE), batch(left=True)
    likely = torch.zeros(48)
    likely[PLACE], likely[5] = 100.0, 50.0
    model.language_model.lm_head.bias = torch.nn.Parameter(likely)
    written = model.generate(**prompts, max_new_tokens=4, do_sample=False, **ways)[:, prompts["input_ids"].shape[1] :]
    assert PLACE not in written and (5 in written) == ("suppress_tokens" not in ways)


def test_the_activity_is_encoded_once_however_many_beams_and_steps_there_are():
    model, made = llm(), batch(left=True)
    calls = []
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    lengths = []
    model.language_model.register_forward_pre_hook(
        lambda _, args, inputs: lengths.append(inputs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    model.generation_config.eos_token_id = None
    model.generate(**made, max_new_tokens=4, num_beams=3, do_sample=False)
    assert len(calls) == 1
    assert lengths == [made["input_ids"].shape[1], 1, 1, 1]  # keys and values of what was read are kept


def test_beams_find_a_sentence_at_least_as_probable_as_the_greedy_one():
    model, made = llm(), batch(left=True)
    model.generation_config.eos_token_id = None
    trial = one(made, 0)
    prompt = trial["input_ids"].shape[1]
    greedy = model.generate(**trial, max_new_tokens=3, do_sample=False)[0, prompt:].tolist()
    beams = model.generate(
        **trial, max_new_tokens=3, num_beams=5, num_return_sequences=5, do_sample=False,
        return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    rows = [row[prompt:].tolist() for row in beams.sequences]
    scores = model.score_sentences([*rows, greedy], **trial)
    assert scores[0] >= scores[-1] - 1e-6
    torch.testing.assert_close(beams.sequences_scores.double() * 3, scores[:5], atol=1e-5, rtol=1e-5)


def test_nucleus_sampling_repeats_with_its_seed_and_differs_without():
    model, made = llm(), batch(left=True)
    settings = {"do_sample": True, "top_p": 0.9, "temperature": 0.7, "max_new_tokens": 8}
    written = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        written.append(model.generate(**made, **settings).tolist())
    assert written[0] == written[1] != written[2]


def test_scores_of_sentences_are_those_of_the_whole_sequence():
    model, made = llm(), batch(left=True)
    trial = one(made, 1)
    answers = [[5, 6, 2], [7, 2], [], [2]]
    scores = model.score_sentences(answers, **trial)
    assert scores[2] == 0.0
    for answer, score in zip(answers, scores):
        if not answer:
            continue
        ids = torch.cat([trial["input_ids"], torch.tensor([answer])], 1)
        labels = torch.full_like(ids, -100)
        labels[0, -len(answer) :] = torch.tensor(answer)
        loss = model(**{**trial, "input_ids": ids, "attention_mask": torch.ones_like(ids)}, labels=labels).loss
        assert float(score) == pytest.approx(-float(loss) * len(answer), abs=1e-5)
    few = model.score_sentences(answers, batch_tokens=1, **trial)
    torch.testing.assert_close(few, scores, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="one trial"):
        model.score_sentences(answers, **made)


def test_the_language_models_attention_to_the_activity_can_be_seen():
    model, made = llm(), batch()
    model.set_attn_implementation({"text_config": "eager"})
    maps = model(**made, output_attentions=True).attentions
    assert len(maps) == 2 and maps[0].shape == (3, 2, *made["input_ids"].shape[1:] * 2)
    last = maps[-1][0, :, 9]  # the last token of the prompt
    torch.testing.assert_close(last[:, :10].sum(-1), torch.ones(2))
    assert bool((last[:, 1:9] > 0).all()) and bool((last[:, 10:] == 0).all())


# ---- bad input ----


def test_wrong_inputs_are_named():
    model, made = llm(), batch()
    fewer = {**made, "input_ids": made["input_ids"].clone()}
    fewer["input_ids"][0, 1] = 4
    with pytest.raises(ValueError, match=r"\[7, 4, 6\] places.*\[8, 4, 6\]"):
        model(**fewer)
    with pytest.raises(ValueError, match="18 places.*no `input_features`"):
        model(made["input_ids"])
    with pytest.raises(ValueError, match="`input_ids` are missing"):
        model(input_features=made["input_features"])


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"projector_type": "conv"}, "projector_type.*conv"),
        ({"modality": "video"}, "modality.*video"),
        ({"modality": "audio"}, "audio_hidden_size"),
        ({"stacking": 0}, "stacking.*0"),
        ({"ctc_weight": -1.0}, "ctc_weight.*-1"),
        ({"ctc_weight": 1.0, "ctc_head": False}, "ctc_head"),
        ({"contrastive_temperature": 0.0}, "contrastive_temperature.*0"),
        ({"contrastive_pooling": "all"}, "contrastive_pooling.*all"),
        ({"projector_dropout": 1.0}, "projector_dropout.*1"),
        ({"text_config": {"vocab_size": 3}}, "model_type"),
        ({"neural_token_id": -1}, "neural_token_id.*-1"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_with_its_value(settings, message):
    with pytest.raises(ValueError, match=message):
        BITLLMConfig(**{"text_config": TEXT, **settings})


# ---- losses ----


def test_the_contrastive_loss_is_the_formula_and_symmetric():
    torch.manual_seed(0)
    neural, text = torch.randn(5, 7), torch.randn(5, 7)
    scale = torch.tensor(10.0)
    a, b = F.normalize(neural, dim=-1), F.normalize(text, dim=-1)
    total = 0.0
    for i in range(5):
        total -= torch.log(torch.exp(10 * a[i] @ b[i]) / sum(torch.exp(10 * a[i] @ b[j]) for j in range(5)))
        total -= torch.log(torch.exp(10 * a[i] @ b[i]) / sum(torch.exp(10 * a[j] @ b[i]) for j in range(5)))
    torch.testing.assert_close(contrastive_loss(neural, text, scale), total / 10)
    torch.testing.assert_close(contrastive_loss(text, neural, scale), total / 10)


def test_further_negatives_raise_the_contrastive_loss_unless_they_are_the_same_sentence():
    torch.manual_seed(0)
    neural, text, more = torch.randn(3, 4), torch.randn(3, 4), torch.randn(2, 4)
    scale, ids = torch.tensor(5.0), torch.tensor([1, 2, 3])
    plain = contrastive_loss(neural, text, scale, ids)
    other = contrastive_loss(neural, text, scale, ids, more, more, torch.tensor([7, 8]))
    assert other > plain
    same = contrastive_loss(neural[:1], text[:1], scale, ids[:1], more, more, torch.tensor([1, 1]))
    assert float(same) == 0.0


def test_a_mean_over_nothing_is_zero_and_garbage_in_the_padding_stays_out():
    vectors = torch.tensor([[[1.0], [float("nan")]], [[5.0], [7.0]]])
    assert masked_mean(vectors, torch.tensor([[True, False], [False, False]])).tolist() == [[1.0], [0.0]]


def test_the_language_model_that_is_given_is_used_as_it_is():
    source = llm().language_model
    expected = copy.deepcopy(source.state_dict())
    config = BITLLMConfig(encoder_config=ENCODER, text_config=source.config)
    model = BITForConditionalGeneration(config, source)
    assert model.language_model is source
    for name, value in source.state_dict().items():
        assert torch.equal(value, expected[name]), name
