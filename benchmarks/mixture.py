"""Token-level mixing of policies against plain sampling of one of them: same model, prompts and settings, side by side.

    python -m benchmarks.mixture

A random model of the toy's shape and two or three random adapters; the order turns from round to round. The figure is
the median over rounds of the ratio of a mixture's time to plain sampling's.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from alignlab.engine.sampling.draw import Sampling
from alignlab.engine.sampling.generate import decode
from alignlab.engine.sampling.local import DecodeSettings
from alignlab.engine.sampling.mixture import Member, mixture_of
from alignlab.engine.sampling.prefixes import Branch
from alignlab.models.with_adapter import with_adapter

VOCABULARY = 200


def main() -> None:
    """Time each way in turn and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=42)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=24)
    arguments = parser.parse_args()
    model = new_model()
    branches = [
        Branch(f"{prompt}/{sample}", (*range(3 + prompt % 20, 15 + prompt % 20), prompt), prompt, sample)
        for prompt in range(arguments.prompts)
        for sample in range(arguments.samples)
    ]
    with tempfile.TemporaryDirectory() as root:
        adapters = [new_adapter(model, Path(root) / str(number), seed=number) for number in range(3)]
        ways = {"plain": adapters[:1], "mixture of 2": adapters[:2], "mixture of 3": adapters}
        for folders in ways.values():
            seconds(model, folders, branches[:4], arguments.new_tokens)
        spent: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(arguments.rounds):
            for name in list(ways)[:: -1 if number % 2 else 1]:
                spent[name].append(seconds(model, ways[name], branches, arguments.new_tokens))
    for name, own in spent.items():
        ratios = [one / plain for one, plain in zip(own, spent["plain"], strict=True)]
        print(f"{name}: {statistics.median(own):.2f} s, {statistics.median(ratios):.2f} times plain sampling")


def new_model() -> Any:
    """A random Llama of the embedded default's shape."""
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, **shape)).eval().requires_grad_(False)


def new_adapter(model: Any, folder: Path, *, seed: int) -> Path:
    """A random adapter on every linear layer."""
    torch.manual_seed(seed)
    wrapped = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, weight in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    wrapped.save_pretrained(str(folder))
    wrapped.unload()
    return folder


def seconds(model: Any, folders: Sequence[Path], branches: Sequence[Branch], new_tokens: int) -> float:
    """Time of decoding every branch; loading the adapters is not counted."""
    settings = DecodeSettings(Sampling(1.0, 1.0), new_tokens, 0, frozenset())
    attached: AbstractContextManager[Any] = (
        with_adapter(model, folders[0])
        if len(folders) == 1
        else mixture_of(model, [Member(folder, 1 / len(folders)) for folder in folders])
    )
    with attached as policy:
        start = time.perf_counter()
        decode(policy, branches, settings=settings, batch_size=1024, finished=lambda branch, tokens: None)
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
