"""What a trained end-to-end network does: its latency, where it errs, what its stages hold, where it looks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.common import RESULTS
from benchmarks.end_to_end_cells import MAX_NEW_TOKENS, REFERENCE, signal_of
from benchmarks.end_to_end_people import WORK, Person, language_model

SEED = 0
MODEL = WORK / "models" / f"attempted.{REFERENCE}.{SEED}" / "model"
CELL = WORK / "cells" / f"attempted.{REFERENCE}.{SEED}.json"
WAYS = {"cascade": "cascade", "greedy": "network alone", "joint": "both together"}
# Parameters, layers, width of keys and values of the published decoders, for the projection.
PUBLISHED_LLMS = {"Qwen2.5 1.5B": 1.54e9, "Qwen2.5 7B": 7.6e9}
# One H100: memory bandwidth (bytes/s), and half of its dense bfloat16 rate (FLOP/s), which large products reach.
ACCELERATOR = {"bytes_per_s": 3.35e12, "flops": 4.9e14}
T15_NEURAL_TOKENS, PAPER_PROMPT_TOKENS, ANSWER_TOKENS = 160, 20, 12


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Run on so many threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    yield
    torch.set_num_threads(before)


def load_network() -> tuple[Any, Any]:
    """The trained network of the first seed and its processor."""
    from bit_speech.training.llm_stages import load_end_to_end
    from processing_bit.processing_bit_llm import BITLLMProcessor

    return load_end_to_end(MODEL).eval(), BITLLMProcessor.from_pretrained(MODEL)


def median_ms(call: Callable[[int], Any], count: int) -> float:
    """Median milliseconds of a call for each of `count` sentences, after three to warm up."""
    seconds = []
    for index in range(count):
        start = time.perf_counter()
        call(index)
        seconds.append(time.perf_counter() - start)
    return 1000 * float(np.median(seconds[3:]))


def measure_latency(sentences: int = 40) -> dict[str, Any]:
    """Milliseconds of every step for one sentence at a time, on one and two threads, beside the cascade."""
    import torch

    from bit_speech import BITForCTC
    from bit_speech.decoding import BeamSearchDecoder

    person = Person("attempted", SEED)
    rows = person.trials["test"][:sentences]
    model, processor = load_network()
    phonemes = BITForCTC.from_pretrained(person.encoder()).eval()
    lm, lexicon = language_model(person)
    settings = {"beam_size": 200, "num_hypotheses": 1, **person.cascade()["settings"]}
    decoder = BeamSearchDecoder(lexicon, lm, **settings)
    log_probs = person.log_probs("test")
    result: dict[str, Any] = {"sentences": sentences, "threads": {}}
    with torch.no_grad():
        trials = [dict(signal_of(processor, [row])) for row in rows]
        names = ("input_features", "input_features_mask")
        told = [model.encode_neural(**{name: trial[name] for name in names}) for trial in trials]
        text = [{key: trial[key] for key in ("input_ids", "attention_mask")} for trial in trials]

        def generate(index: int, new: int) -> Any:
            return model.generate(
                **trials[index], min_new_tokens=new, max_new_tokens=new, do_sample=False, pad_token_id=0
            )

        for number in (1, 2):
            with threads(number):
                one = {
                    "features": median_ms(lambda i: signal_of(processor, [rows[i]]), sentences),
                    "encoder": median_ms(lambda i: model.encode_neural(**{n: trials[i][n] for n in names}), sentences),
                    "prefill": median_ms(
                        lambda i: model(
                            **text[i],
                            neural_tokens=told[i][0],
                            neural_mask=told[i][1],
                            use_cache=True,
                            logits_to_keep=1,
                        ),
                        sentences,
                    ),
                    "first_token": median_ms(lambda i: generate(i, 1), sentences),
                    "eleven_tokens": median_ms(lambda i: generate(i, 11), sentences),
                    "sentence": median_ms(
                        lambda i: model.generate(
                            **trials[i], max_new_tokens=MAX_NEW_TOKENS, do_sample=False, pad_token_id=0
                        ),
                        sentences,
                    ),
                    "cascade_encoder": median_ms(
                        lambda i: phonemes(
                            trials[i]["input_features"], attention_mask=trials[i]["input_features_mask"]
                        ),
                        sentences,
                    ),
                    "cascade_search": median_ms(lambda i: decoder.decode(log_probs[i]), sentences),
                }
            one["token"] = (one.pop("eleven_tokens") - one["first_token"]) / 10
            result["threads"][str(number)] = one
        result["without_cache_sentence"] = median_ms(
            lambda i: model.generate(
                **trials[i], max_new_tokens=MAX_NEW_TOKENS, do_sample=False, use_cache=False, pad_token_id=0
            ),
            min(sentences, 15),
        )
    result["parameters"] = {
        "encoder": sum(p.numel() for p in model.encoder.parameters()),
        "language_model": sum(p.numel() for p in model.language_model.parameters()),
    }
    result["projected"] = project(memory_rate(), product_rate())
    return result


def memory_rate() -> float:
    """Bytes per second that one pass over a large array reads here."""
    import torch

    values = torch.ones(64 * 2**20)
    seconds = min(_seconds(values.sum) for _ in range(3))
    return values.numel() * 4 / seconds


def product_rate() -> float:
    """FLOP/s of a large product in bfloat16 here."""
    import torch

    left, right = torch.ones(256, 2048, dtype=torch.bfloat16), torch.ones(2048, 2048, dtype=torch.bfloat16)
    seconds = min(_seconds(lambda: left @ right) for _ in range(3))
    return 2 * 256 * 2048 * 2048 / seconds


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def project(memory: float, products: float) -> dict[str, Any]:
    """Arithmetic for the published sizes in bfloat16: prefill by products, each token by reading all weights once."""
    prompt = T15_NEURAL_TOKENS + PAPER_PROMPT_TOKENS
    machines = {"this processor": (memory, products), "one H100": (ACCELERATOR["bytes_per_s"], ACCELERATOR["flops"])}
    found: dict[str, Any] = {"prompt_tokens": prompt, "answer_tokens": ANSWER_TOKENS, "machines": {}}
    for machine, (rate, flops) in machines.items():
        rows = {}
        for name, parameters in PUBLISHED_LLMS.items():
            reading = 2 * parameters / rate
            prefill = max(2 * parameters * prompt / flops, reading)
            rows[name] = {
                "prefill_ms": 1000 * prefill, "token_ms": 1000 * reading,
                "sentence_ms": 1000 * (prefill + ANSWER_TOKENS * reading),
            }  # fmt: skip
        found["machines"][machine] = {"bytes_per_s": rate, "flops": flops, "models": rows}
    return found


def analyse() -> dict[str, Any]:
    """Tables and figures of the first seed."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from bit_speech.evaluation import embedding_similarity, sentence_embeddings, similarity_by_stage
    from bit_speech.evaluation.representation_figures import stage_figure

    torch.set_num_threads(1)
    person = Person("attempted", SEED)
    told = json.loads(CELL.read_text())["test"]["sentences"]
    texts = person.texts("test")
    folder = WORK / "llm" / "model"
    reader, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    meaning = {name: embedding_similarity(texts, told[way], reader, tokenizer, layer=0) for way, name in WAYS.items()}
    vectors = sentence_embeddings(texts, reader, tokenizer, layer=0)
    stages = similarity_by_stage(stage_states(person), vectors, num_permutations=500, num_bootstrap=300)
    (RESULTS / "end_to_end_stages.png").write_bytes(stage_figure(stages, "the text model"))
    return {
        "errors": breakdown(person, texts, told),
        "embedding_similarity": {name: one.to_dict() for name, one in meaning.items()},
        "stages": {name: {"correlation": one.correlation, "low": one.low, "high": one.high, "p_value": one.p_value}
                   for name, one in stages.items()},
        "attention": attention(person, texts),
    }  # fmt: skip


def breakdown(person: Person, texts: list[str], told: dict[str, list[str]]) -> dict[str, Any]:
    """Errors by word frequency in the n-gram model's text, and by sentence length."""
    from benchmarks.end_to_end_people import held_out_sentences
    from bit_speech.demo import language_model_sentences
    from bit_speech.evaluation import errors_by_frequency, errors_by_length, word_counts
    from bit_speech.evaluation.breakdown_figures import breakdown_figure
    from bit_speech.training import select_sentences

    counts = word_counts(select_sentences(language_model_sentences([]), exclude=held_out_sentences()))
    edges = {"frequency": (0, 30, 300, 3000), "length": (2, 4, 5, 6)}
    frequency = {
        name: errors_by_frequency(texts, told[way], counts, edges=edges["frequency"]) for way, name in WAYS.items()
    }
    length = {name: errors_by_length(texts, told[way], edges=edges["length"]) for way, name in WAYS.items()}
    (RESULTS / "end_to_end_errors.png").write_bytes(breakdown_figure(frequency, length))
    return {
        "by_frequency": {name: [one.to_dict() for one in classes] for name, classes in frequency.items()},
        "by_length": {name: [one.to_dict() for one in classes] for name, classes in length.items()},
    }


def stage_states(person: Person) -> dict[str, list[np.ndarray]]:
    """States of every test sentence: the features, the encoder before and after, the neural tokens."""
    import torch

    from bit_speech import BITForCTC

    model, processor = load_network()
    before = BITForCTC.from_pretrained(person.encoder()).eval().encoder
    names = ("features", "encoder, phonemes alone", "encoder, end to end", "neural tokens")
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    with torch.no_grad():
        for row in person.trials["test"]:
            inputs = signal_of(processor, [row])
            features, mask = inputs["input_features"], inputs["input_features_mask"]
            tokens, token_mask, _ = model.encode_neural(features, mask)
            states = [before(features, attention_mask=mask), model.encoder(features, attention_mask=mask)]
            found["features"].append(features[0][mask[0].bool()].numpy())
            for name, state in zip(names[1:3], states):
                found[name].append(state.last_hidden_state[0].numpy())
            found["neural tokens"].append(tokens[0][token_mask[0]].numpy())
    return found


def attention(person: Person, texts: list[str]) -> dict[str, Any]:
    """Where the written tokens of one sentence look; the longest sentence of the first thirty."""
    import torch

    from bit_speech.evaluation import attention_over_neural
    from bit_speech.evaluation.representation_figures import attention_figure

    model, processor = load_network()
    model.set_attn_implementation({"text_config": "eager"})
    index = max(range(30), key=lambda place: len(texts[place].split()))
    inputs = signal_of(processor, [person.trials["test"][index]])
    with torch.no_grad():
        written = model.generate(
            **inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False, pad_token_id=0, output_attentions=True,
            return_dict_in_generate=True,
        )  # fmt: skip
    places = (inputs["input_ids"][0] == processor.neural_token_id).numpy()
    steps = [[layer.float().numpy() for layer in layers] for layers in written.attentions]
    looked = attention_over_neural(steps, places)
    ids = written.sequences[0, len(places) :].tolist()
    tokens = [processor.tokenizer.decode([token]).strip() or "_" for token in ids]
    frame_ms = 20.0 * processor.patch_stride * processor.stacking
    (RESULTS / "end_to_end_attention.png").write_bytes(attention_figure(looked, tokens, frame_ms))
    centres = (looked * np.arange(looked.shape[1])).sum(1) / looked.sum(1)
    order = float(np.corrcoef(centres[:-1], np.arange(len(centres) - 1))[0, 1]) if len(centres) > 3 else None
    return {
        "said": texts[index], "written": processor.decode_answers([ids])[0],
        "share_on_neural_tokens": float(looked.sum(1).mean()), "order_in_time": order,
    }  # fmt: skip
