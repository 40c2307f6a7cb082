"""An end-to-end decoder small enough to train in a second, and a run of two processes that share an update."""

import argparse
import copy
import functools
import importlib.util
import os
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from bit_speech.training import BITLLMTrainingArguments, ContrastiveTrainer, build_end_to_end, train_tokenizer

_spec = importlib.util.spec_from_file_location("tests_training_tiny", Path(__file__).with_name("tiny.py"))
tiny = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny)

SENTENCES = [
    "go on",
    "bring it closer",
    "i am fine",
    "what is that",
    "he said so",
    "they came home",
    "it is cold",
    "we like it",
]


def trials(count=8, seed=0, sentences=None):
    """Rows whose sentence is one of eight, or the given ones."""
    rows = tiny.trials(count, seed=seed)
    texts = sentences or [SENTENCES[i % len(SENTENCES)] for i in range(count)]
    return [{**row, "text": text} for row, text in zip(rows, texts, strict=True)]


@functools.cache
def _learned_tokenizer():
    return train_tokenizer([*SENTENCES, "decode the above neural activity into an English sentence:"] * 4, 300)


def tokenizer():
    """A tokenizer of one's own: a processor adds a token to it."""
    return copy.deepcopy(_learned_tokenizer())


def text_config(**settings):
    small = {
        "vocab_size": 300,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 24,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return Qwen2Config(**{**small, **settings})


def language_model(**settings):
    torch.manual_seed(1)
    return Qwen2ForCausalLM(text_config(**settings))


def build(encoder=None, dropout=0.0, processor_settings=None, text=None, **settings):
    """Model and processor."""
    encoder = tiny.model(dropout) if encoder is None else encoder
    torch.manual_seed(2)
    return build_end_to_end(
        encoder,
        language_model(**(text or {})),
        feature_extractor=tiny.processor().feature_extractor,
        tokenizer=tokenizer(),
        processor_settings=processor_settings,
        **{"contrastive_size": 8, **settings},
    )


def arguments(output_dir, **settings):
    small = {
        "use_cpu": True,
        "max_steps": 2,
        "per_device_train_batch_size": 8,
        "learning_rate": 5e-3,
        "eval_strategy": "no",
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "logging_steps": 1,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "max_new_tokens": 16,
    }
    return BITLLMTrainingArguments(output_dir=str(output_dir), **{**small, **settings})


def trainer(output_dir, train=None, evaluation=None, built=None, augmentation=None, **settings):
    model, processor = build() if built is None else built
    return ContrastiveTrainer(
        model,
        arguments(output_dir, **settings),
        train_dataset=train,
        eval_dataset=evaluation,
        processing_class=processor,
        augmentation=augmentation,
    )


def one_update(output_dir, batch_size, accumulation, count=8):
    """One plain gradient step over `count` trials with every loss; afterwards, weights differ by the gradient."""
    run = trainer(
        output_dir,
        train=trials(count),
        built=build(ctc_weight=0.3, contrastive_weight=0.5),
        max_steps=2,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        optim="sgd",
        learning_rate=0.3,
        lr_scheduler_type="constant",
        max_grad_norm=0,
        negative_queue=8,
    )
    run.train()
    return run


def spread(folder):
    """The network spread over two processes layer by layer: does it give the numbers of one that is not?"""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    from bit_speech.training import choose_trained_parts

    models = []
    for _ in range(2):
        model, processor = build(projector_type="cross_attention")
        torch.manual_seed(0)
        models.append(choose_trained_parts(model, "lora").eval())
    ours, mesh = models[0], init_device_mesh("cpu", (2,))
    for module in ours.modules():
        if type(module).__name__ in ("BITLayer", "Qwen2DecoderLayer"):
            fully_shard(module, mesh=mesh)
    fully_shard(ours, mesh=mesh)
    rows = trials(3)
    features, texts = [row["features"] for row in rows], [row["text"] for row in rows]
    batch = processor(features, texts, session_id="p.0", return_tensors="pt")
    losses, vectors = [], []
    for model in models:
        with torch.no_grad():
            vectors.append(model(**batch, embeds_only=True).neural_embeds)
        output = model(**batch)
        output.loss.backward()
        losses.append(output.loss)
    run = trainer(folder, built=(ours, processor), train=trials(4))
    run.model = ours
    written = run.write_sentences(rows)
    run.model = models[1]
    assert torch.equal(*losses) and torch.equal(*vectors)
    assert any(written) and written == run.write_sentences(rows)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("rank", type=int)
    parser.add_argument("--spread", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    # A file instead of a port, which another process might have.
    store = f"file://{options.folder}/store"
    os.environ |= {"RANK": str(options.rank), "LOCAL_RANK": str(options.rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    torch.distributed.init_process_group("gloo", init_method=store, rank=options.rank, world_size=2)
    run = spread(options.folder) if options.spread else one_update(options.folder, batch_size=2, accumulation=2)
    if run is not None and run.is_world_process_zero():
        torch.save([log["loss"] for log in run.state.log_history if "loss" in log], f"{options.folder}/losses.pt")
        torch.save(run.model.state_dict(), f"{options.folder}/weights.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
