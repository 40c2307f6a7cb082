"""Small causal language models for tests: untrained, but of the architectures that people use."""

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from bit_speech.training import train_tokenizer

TEXT = ["the cat sat on the mat", "a cat saw the rat", "it's a rat", "i saw it"]


def small_tokenizer(vocab_size=300):
    return train_tokenizer(TEXT, vocab_size)


def small_model(kind="qwen2", vocab_size=300, seed=0):
    torch.manual_seed(seed)
    shape = {
        "vocab_size": vocab_size,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 24,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "max_position_embeddings": 256,
    }
    if kind == "gpt2":
        config = GPT2Config(vocab_size=vocab_size, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2)
        return GPT2LMHeadModel(config).eval()
    config_class, model_class = {"qwen2": (Qwen2Config, Qwen2ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}[
        kind
    ]
    return model_class(config_class(**shape, initializer_range=0.3)).eval()
