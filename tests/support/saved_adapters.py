"""LoRA adapters of every kind, with random weights, saved by PEFT."""

import copy

import torch
from peft import LoraConfig, get_peft_model

ATTENTION = ["q_proj", "v_proj"]
MAKES = {
    "attention": {"target_modules": ATTENTION},
    "all linear": {"target_modules": "all-linear"},
    "rank-stabilised": {"target_modules": "all-linear", "use_rslora": True, "lora_alpha": 3},
    "dora": {"target_modules": "all-linear", "use_dora": True},
    "ranks of its own": {"target_modules": ATTENTION, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 9}},
    "one layer": {"target_modules": ATTENTION, "layers_to_transform": [1]},
    "the head": {"target_modules": ["lm_head", "q_proj"]},
    "the embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
    "a trained head": {"target_modules": ATTENTION, "modules_to_save": ["lm_head"]},
    "trained embeddings": {"target_modules": ATTENTION, "modules_to_save": ["embed_tokens", "norm"]},
    "trained tokens": {"target_modules": ATTENTION, "trainable_token_indices": [5, 6, 7]},
    "from principal components": {"target_modules": ATTENTION, "init_lora_weights": "pissa"},
}  # fmt: skip


def saved(base, folder, make, *, scale=0.05):
    """An adapter with random weights, saved by PEFT and by nobody else."""
    torch.manual_seed(0)
    wrapped = get_peft_model(copy.deepcopy(base.model), LoraConfig(**{"r": 4, "lora_alpha": 8, **make}))
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * scale)
    wrapped.save_pretrained(folder)
    return folder
