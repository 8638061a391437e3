"""alignlab's generation against the reference's way: same model, prefixes and sampling settings, side by side.

    python -m benchmarks.generation --json OUT

The reference's way (one pass a path, each prefix read from scratch, batches of 10) is `model.generate` in plain lines,
with top-k off so that both draw from the same nucleus. Requests are taken in slices; each slice runs both ways, the
order turns from slice to slice, and the figures are sums. Texts are random tokens.
"""

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

KINDS = ("reference", "alignlab")
VOCABULARY = 8000
STOP = 2
"""A random model ends a text by chance alone, 1 in 8,000 tokens."""


@dataclass
class Spent:
    """What one way cost, over all slices."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    prefill_tokens: int = 0
    continuations: int = 0


@dataclass(frozen=True)
class Prefix:
    """One prefix of one request."""

    id: str
    ids: list[int]


def main() -> None:
    """Alternates both ways and prints the table."""
    arguments = _parse()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    model = new_model(arguments)
    requests = prefixes(arguments)
    ways: dict[str, Callable[..., tuple[dict[str, list[list[int]]], int]]] = {
        "reference": reference_way,
        "alignlab": alignlab_way,
    }
    spent = {kind: Spent() for kind in KINDS}
    for kind in KINDS:  # both have run once before anything is timed
        ways[kind](model, requests[0][:1], arguments, samples=1)
    size = -(-len(requests) // arguments.slices)
    for number, start in enumerate(range(0, len(requests), size)):
        slice_ = [prefix for request in requests[start : start + size] for prefix in request]
        for kind in KINDS if number % 2 == 0 else KINDS[::-1]:
            measure(spent[kind], ways[kind], model, slice_, arguments)
            print(f"slice {number + 1}, {kind}: {spent[kind].seconds[-1]:.1f} s", file=sys.stderr)
    summary = summarise(spent, arguments) | {"equal_greedy": equal_greedy(model, requests, arguments)}
    print(table(summary))
    if arguments.json:
        arguments.json.write_text(json.dumps(summary, indent=2) + "\n")


def measure(
    spent: Spent,
    way: Callable[..., tuple[dict[str, list[list[int]]], int]],
    model: Any,
    requests: Sequence[Prefix],
    arguments: argparse.Namespace,
) -> None:
    """Adds one slice's cost."""
    wall, cpu = time.perf_counter(), time.process_time()
    drawn, prefill = way(model, requests, arguments, samples=arguments.samples)
    if arguments.device == "cuda":
        torch.cuda.synchronize()
    spent.seconds.append(time.perf_counter() - wall)
    spent.cpu_seconds.append(time.process_time() - cpu)
    spent.prefill_tokens += prefill
    spent.continuations += sum(len(samples) for samples in drawn.values())


@torch.no_grad()
def reference_way(
    model: Any, requests: Sequence[Prefix], arguments: argparse.Namespace, *, samples: int, temperature: float = 0.8
) -> tuple[dict[str, list[list[int]]], int]:
    """One pass over the prefixes a path, in batches of 10, as the reference code does."""
    drawn: dict[str, list[list[int]]] = {prefix.id: [] for prefix in requests}
    prefill = 0
    sampling = {"do_sample": True, "temperature": temperature, "top_p": 0.7, "top_k": 0}
    for _ in range(samples):
        for start in range(0, len(requests), 10):
            batch = requests[start : start + 10]
            width = max(len(prefix.ids) for prefix in batch)
            ids = torch.tensor([[0] * (width - len(prefix.ids)) + prefix.ids for prefix in batch])
            mask = torch.tensor([[0] * (width - len(prefix.ids)) + [1] * len(prefix.ids) for prefix in batch])
            prefill += ids.numel()
            output = model.generate(
                ids.to(arguments.device),
                attention_mask=mask.to(arguments.device),
                max_new_tokens=arguments.new_tokens,
                pad_token_id=0,
                eos_token_id=STOP,
                **(sampling if temperature else {"do_sample": False}),
            )
            for prefix, row in zip(batch, output[:, width:].tolist(), strict=True):
                drawn[prefix.id].append(row)
    return drawn, prefill


def alignlab_way(
    model: Any, requests: Sequence[Prefix], arguments: argparse.Namespace, *, samples: int, temperature: float = 0.8
) -> tuple[dict[str, list[list[int]]], int]:
    """As `generator=transformers` does."""
    from alignlab.engine.sampling.base import PrefixRequest
    from alignlab.engine.sampling.draw import Sampling
    from alignlab.engine.sampling.local import Decoder, DecodeSettings
    from alignlab.engine.sampling.prefixes import branches_of, shared_prefixes_of

    drawn: dict[str, list[list[int]]] = {prefix.id: [] for prefix in requests}
    settings = DecodeSettings(Sampling(temperature, 0.7), arguments.new_tokens, 0, frozenset({STOP}))
    decoder = Decoder(
        model,
        settings,
        batch_size=arguments.batch,
        finished=lambda branch, tokens: drawn[requests[branch.request].id].append(tokens),
    )
    branches = branches_of([PrefixRequest(prefix.id, prefix.ids, samples) for prefix in requests])
    decoder.run(shared_prefixes_of(branches))
    return drawn, decoder.counts.prefill_tokens


def equal_greedy(model: Any, requests: Sequence[Sequence[Prefix]], arguments: argparse.Namespace) -> str:
    """How many greedy continuations of the first request are the same both ways: the work is the same work."""
    both = [
        {name: samples[0][:length] for name, samples in way(model, requests[0], arguments, **greedy)[0].items()}
        for way, greedy, length in (
            (reference_way, {"samples": 1, "temperature": 0.0}, arguments.new_tokens),
            (alignlab_way, {"samples": 1, "temperature": 0.0}, arguments.new_tokens),
        )
    ]
    return f"{sum(both[0][name] == both[1][name] for name in both[0])} of {len(both[0])}"


def new_model(arguments: argparse.Namespace) -> Any:
    """A random Llama; 256 by 6 over 8,000 tokens has 8.9M parameters."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=arguments.hidden,
        intermediate_size=arguments.hidden * 8 // 3 // 8 * 8,
        num_hidden_layers=arguments.layers,
        num_attention_heads=max(1, arguments.hidden // 32),
        max_position_embeddings=2048,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    dtype = torch.bfloat16 if arguments.device == "cuda" else torch.float32
    return LlamaForCausalLM(config).to(arguments.device, dtype).eval().requires_grad_(False)


def prefixes(arguments: argparse.Namespace) -> list[list[Prefix]]:
    """Every request's prefixes, shortest first: a prompt of 25 to 60 random tokens, an opener of 8, k of a response."""
    rng = random.Random(0)
    requests = []
    for number in range(arguments.requests):
        text = [rng.randrange(3, VOCABULARY) for _ in range(rng.randint(25, 60) + 8 + 10 * arguments.k)]
        cuts = range(len(text) - 10 * (arguments.k - 1), len(text) + 1, 10)
        requests.append([Prefix(f"{number}/{cut}", text[:cut]) for cut in cuts])
    return requests


def summarise(spent: dict[str, Spent], arguments: argparse.Namespace) -> dict[str, Any]:
    """Sums, and the ratio of the whole with the median over slices beside it."""
    left, right = (spent[kind] for kind in KINDS)
    assert left.continuations == right.continuations
    return {
        "requests": arguments.requests,
        "k": arguments.k,
        "samples": arguments.samples,
        "continuations": left.continuations,
        "device": arguments.device,
        "threads": torch.get_num_threads(),
        "ratio_prefill": left.prefill_tokens / right.prefill_tokens,
        "ratio_seconds": sum(left.seconds) / sum(right.seconds),
        "ratio_seconds_median": statistics.median(a / b for a, b in zip(left.seconds, right.seconds, strict=True)),
        "ratio_cpu_seconds": sum(left.cpu_seconds) / sum(right.cpu_seconds),
        **{kind: asdict(spent[kind]) for kind in KINDS},
    }


def table(summary: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        f"{summary['requests']} requests x {summary['k']} k x {summary['samples']} samples = "
        f"{summary['continuations']:,} continuations, {summary['device']}, {summary['threads']} threads; greedy "
        f"continuations equal: {summary['equal_greedy']}",
        "",
        "| | prefill tokens | wall, s | CPU, s |",
        "|---|---|---|---|",
    ]
    for kind in KINDS:
        cost = summary[kind]
        seconds = f"{sum(cost['seconds']):.1f} | {sum(cost['cpu_seconds']):.1f}"
        lines.append(f"| {kind} | {cost['prefill_tokens']:,} | {seconds} |")
    ratios = [summary[name] for name in ("ratio_prefill", "ratio_seconds", "ratio_cpu_seconds")]
    lines.append("| ratio | " + " | ".join(f"**{value:.1f}**" for value in ratios) + " |")
    return "\n".join(lines)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=50)
    parser.add_argument("--k", type=int, default=8, help="prefixes a request, 10 tokens apart")
    parser.add_argument("--samples", type=int, default=20, help="continuations a prefix")
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--batch", type=int, default=320, help="alignlab's sequences at once; the reference has 10")
    parser.add_argument("--slices", type=int, default=5)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--threads", type=int, help="CPU threads; torch's choice unless given")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda computes in bfloat16")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
