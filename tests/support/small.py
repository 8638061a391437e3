"""Small random models of several architectures, and branches over a few texts, for the tests of generation."""

import random

import torch
import transformers

from alignlab.engine.sampling.prefixes import Branch

VOCABULARY = 120
STOP = 2
_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": STOP,
}
_OWN = {
    "Llama": {},
    "Mistral": {"sliding_window": 9},
    "Gemma2": {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8},
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "GptOss": {"head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 8},
    "Mamba": {},
}
SHARING = ("Llama", "Mistral", "Gemma2", "GPT2")
APART = ("GptOss", "Mamba")
"""Attention sinks; recurrent state."""
_models = {}


def model_of(name):
    """A model in evaluation mode, the same one at every call."""
    if name not in _models:
        torch.manual_seed(0)
        config = getattr(transformers, f"{name}Config")(**_COMMON, **_OWN[name])
        _models[name] = transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    return _models[name]


def texts():
    """Three texts of different length."""
    rng = random.Random(1)
    return [[rng.randrange(3, VOCABULARY) for _ in range(length)] for length in (40, 33, 12)]


def nested_branches(samples=2):
    """Each text whole and cut at two places: longer than the sliding windows above, and shorter."""
    return [
        Branch(f"{number}/{depth}/{sample}", tuple(text[:depth]), number, sample)
        for number, text in enumerate(texts())
        for depth in (len(text), len(text) - 3, 5)
        for sample in range(samples)
    ]
