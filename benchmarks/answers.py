"""alignlab's sampler against transformers' `generate` for n answers a prompt: time, and whether both draw the same.

    python -m benchmarks.answers --model DIR --prompts prompts.jsonl --json OUT

`generate` gets left-padded batches of 128 rows, each prompt repeated n times, with top-k off. Prompts are taken in
slices; each slice runs both ways, the order turns from slice to slice. Lengths and first tokens of all answers are
compared by permutation tests. Without a model a small random one answers random tokens.
"""

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alignlab.runs.runner import keep_freed_memory

Answers = list[list[int]]
"""Tokens of the answers, the stop token included."""
VOCABULARY, STOP = 40, 2
"""A random model ends a text by chance, 1 in 40 tokens."""
SHUFFLES = 999


def main() -> None:
    """Run both ways and print the table."""
    arguments = _parse()
    keep_freed_memory()  # as every run does; `generate` gains by it too
    model, prompts, stops = _model(arguments)
    ways: dict[str, Callable[..., Answers]] = {"generate": by_generate, "alignlab": by_alignlab}
    seconds, drawn = dict.fromkeys(ways, 0.0), {way: [] for way in ways}
    for sample in ways.values():  # both have run once before anything is timed
        sample(model, prompts[:1], stops, arguments, offset=-1)
    size = -(-len(prompts) // arguments.slices)
    for number, start in enumerate(range(0, len(prompts), size)):
        for way in sorted(ways, reverse=number % 2 == 1):
            begun = time.perf_counter()
            drawn[way] += ways[way](model, prompts[start : start + size], stops, arguments, offset=start)
            seconds[way] += time.perf_counter() - begun
    tokens = {way: sum(map(len, answers)) for way, answers in drawn.items()}
    found = {
        "prompts": len(prompts),
        "answers": arguments.samples * len(prompts),
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "tokens": tokens,
        "tokens_per_second": {way: tokens[way] / seconds[way] for way in ways},
        "ratio": tokens["alignlab"] / seconds["alignlab"] / (tokens["generate"] / seconds["generate"]),
        "mean_length": {way: float(np.mean([len(answer) for answer in answers])) for way, answers in drawn.items()},
        "p_lengths": p_of_lengths(drawn["generate"], drawn["alignlab"]),
        "p_first_tokens": p_of_first_tokens(drawn["generate"], drawn["alignlab"]),
    }
    print(table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


@torch.no_grad()
def by_generate(
    model: Any, prompts: Sequence[list[int]], stops: frozenset[int], arguments: argparse.Namespace, *, offset: int
) -> Answers:
    """Answers by transformers, every row with its prompt."""
    rows = [prompt for prompt in prompts for _ in range(arguments.samples)]
    torch.manual_seed(arguments.seed + offset)
    answers: Answers = []
    for start in range(0, len(rows), arguments.batch):
        batch = rows[start : start + arguments.batch]
        width = max(map(len, batch))
        output = model.generate(
            torch.tensor([[0] * (width - len(row)) + row for row in batch], device=model.device),
            attention_mask=torch.tensor(
                [[0] * (width - len(row)) + [1] * len(row) for row in batch], device=model.device
            ),
            max_new_tokens=arguments.new_tokens,
            do_sample=True,
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            pad_token_id=0,
            eos_token_id=sorted(stops),
        )
        answers += [_ended(row, stops) for row in output[:, width:].tolist()]
    return answers


def by_alignlab(
    model: Any, prompts: Sequence[list[int]], stops: frozenset[int], arguments: argparse.Namespace, *, offset: int
) -> Answers:
    """Answers as `algorithm=pairs` samples them."""
    from alignlab.engine.sampling.base import PrefixRequest
    from alignlab.engine.sampling.draw import Sampling
    from alignlab.engine.sampling.generate import decode
    from alignlab.engine.sampling.local import DecodeSettings
    from alignlab.engine.sampling.prefixes import branches_of

    drawn: dict[tuple[int, int], list[int]] = {}
    settings = DecodeSettings(Sampling(1.0, 1.0), arguments.new_tokens, arguments.seed, stops)
    branches = branches_of(
        [PrefixRequest(f"{offset + number}", prompt, arguments.samples) for number, prompt in enumerate(prompts)]
    )
    decode(
        model,
        branches,
        settings=settings,
        batch_size=arguments.batch,
        finished=lambda branch, tokens: drawn.update({(branch.request, branch.sample): tokens}),
    )
    return [drawn[key] for key in sorted(drawn)]


def _ended(tokens: list[int], stops: frozenset[int]) -> list[int]:
    end = next((index + 1 for index, token in enumerate(tokens) if token in stops), len(tokens))
    return tokens[:end]


def p_of_lengths(one: Answers, other: Answers) -> float:
    """Probability of a difference in mean length as large as this one if both ways draw alike."""
    lengths = np.array([len(answer) for answer in (*one, *other)], dtype=float)
    return _permutation(lengths, len(one), lambda first, second: abs(float(first.mean() - second.mean())))


def p_of_first_tokens(one: Answers, other: Answers) -> float:
    """The same of the distance between the counts of first tokens."""
    firsts = np.array([answer[0] for answer in (*one, *other)])

    def distance(left: Any, right: Any) -> float:
        counts = Counter(left.tolist())
        counts.subtract(right.tolist())
        return float(sum(abs(count) for count in counts.values()))

    return _permutation(firsts, len(one), distance)


def _permutation(values: Any, split: int, distance: Callable[[Any, Any], float]) -> float:
    rng, seen = np.random.default_rng(0), distance(values[:split], values[split:])
    shuffled = (rng.permutation(values) for _ in range(SHUFFLES))
    return (1 + sum(distance(own[:split], own[split:]) >= seen for own in shuffled)) / (1 + SHUFFLES)


def table(found: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        f"{found['answers']} answers to {found['prompts']} prompts, {found['threads']} threads; p of equal lengths "
        f"{found['p_lengths']:.2f}, of equal first tokens {found['p_first_tokens']:.2f}",
        "",
        "| | wall, s | tokens | tokens/s | mean length |",
        "|---|---|---|---|---|",
    ]
    for way, seconds in found["seconds"].items():
        speed, length = found["tokens_per_second"][way], found["mean_length"][way]
        lines.append(f"| {way} | {seconds:.1f} | {found['tokens'][way]} | {speed:.0f} | {length:.1f} |")
    return "\n".join([*lines, f"| ratio | | | **{found['ratio']:.1f}** | |"])


def _model(arguments: argparse.Namespace) -> tuple[Any, list[list[int]], frozenset[int]]:
    """Model, prompts as tokens, and the tokens that end an answer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from alignlab.engine.sampling.generate import stop_tokens
    from alignlab.models.prompts import PromptEncoder

    if arguments.model is None:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=512,
            bos_token_id=1,
            eos_token_id=STOP,
        )
        rng = random.Random(0)
        prompts = [[rng.randrange(3, VOCABULARY) for _ in range(rng.randint(10, 40))] for _ in range(arguments.limit)]
        return LlamaForCausalLM(config).eval().requires_grad_(False), prompts, frozenset({STOP})
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval().requires_grad_(False)
    encoder = PromptEncoder(tokenizer, None)
    lines = arguments.prompts.read_text(encoding="utf-8").splitlines()[: arguments.limit]
    return model, [encoder.prompt_ids(json.loads(line)["prompt"]) for line in lines], stop_tokens(model, encoder)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a model with a chat template")
    parser.add_argument("--prompts", type=Path, help="JSON Lines with a column prompt")
    parser.add_argument("--limit", type=int, default=171, help="prompts")
    parser.add_argument("--samples", type=int, default=4, help="answers a prompt")
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--batch", type=int, default=128, help="sequences at once, both ways")
    parser.add_argument("--slices", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
