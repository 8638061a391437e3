"""Tiny checkpoints in the layout of PKU-Alignment/beaver-7b, and their score, written out plainly."""

import json
import math

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from alignlab.models.scratch import bpe_tokenizer

HIDDEN = 16


def small_llama():
    """A random Llama with its tokenizer."""
    tokenizer = bpe_tokenizer(["BEGINNING OF CONVERSATION: USER: how are you ASSISTANT: fine"] * 3, 300)
    shape = {"hidden_size": HIDDEN, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.4, max_position_embeddings=128, **shape)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval(), tokenizer


def head_of(*, bias=True):
    generator = torch.Generator().manual_seed(1)
    tensors = {"score_head.weight": torch.randn(1, HIDDEN, generator=generator)}
    if bias:
        tensors["score_head.bias"] = torch.tensor([0.75])
    normalizer = {"mean": torch.tensor([-3.0]), "var": torch.tensor([6.25]), "count": torch.tensor([100])}
    return tensors | {f"normalizer.{name}": tensor for name, tensor in normalizer.items()}


def checkpoint(llama, folder, *, files=1, without=(), head=None, **changed):
    """A folder in the layout of PKU-Alignment/beaver-7b-v1.0-reward."""
    model, tokenizer = llama
    tensors = {f"model.{name}": tensor.clone() for name, tensor in model.model.state_dict().items()}
    tensors |= head or head_of()
    tensors = {name: tensor for name, tensor in tensors.items() if name not in without}
    names = sorted(tensors)
    folder.mkdir()
    if files == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        shard = {name: f"model-{number % files + 1:05}-of-{files:05}.safetensors" for number, name in enumerate(names)}
        for file in set(shard.values()):
            part = {name: tensors[name] for name in names if shard[name] == file}
            save_file(part, folder / file, metadata={"format": "pt"})
        index = {"metadata": {}, "weight_map": shard}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    own = {"architectures": ["LlamaModelForScore"], "score_dim": 1, "score_type": "reward", "do_normalize": True}
    settings = model.config.to_dict() | own | {"normalizer_type": "ExponentialMovingAverage", "momentum": 0.9} | changed
    (folder / "config.json").write_text(json.dumps(settings))
    tokenizer.save_pretrained(folder)
    return folder


def plain_score(llama, prompt, response, *, normalised=True, cost=False, bias=0.75, eos=True, most=None):
    """Llama's last hidden state of one row, times the head, plus its bias, normalised, in float64."""
    model, tokenizer = llama
    weight = head_of()["score_head.weight"][0].double()
    text = f"BEGINNING OF CONVERSATION: USER: {prompt} ASSISTANT:{response}" + ("<eos>" if eos else "")
    ids = torch.tensor([tokenizer(text)["input_ids"][:most]])
    with torch.no_grad():
        hidden = model.model(ids).last_hidden_state[0, -1].double()
    score = float(hidden @ weight) + bias
    if normalised:
        score = (score if cost else score + 3.0) / (math.sqrt(6.25) + 1e-8)
    return -score if cost else score
