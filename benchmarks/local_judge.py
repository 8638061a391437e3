"""A local judge's questions against one plain forward each: seconds, tokens read, greatest difference of a probability.

    python -m benchmarks.local_judge --model DIR --data FILE.jsonl [--questions 160] [--json OUT]

An answer of the data (columns `prompt` and `response_0`) is cut after 0, 10, 20 and 40 words; the next 48 words are the
continuation that is judged, in both wordings. The two ways run in one process: half of the plain forwards, all shared
ones, the other half. Seconds are of the processor, since other programs may run beside it.
"""

import argparse
import itertools
import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from alignlab.config.schema import PretrainedConfig
from alignlab.engine.scoring.next_token import next_token_masses
from alignlab.io.prefix import common_prefix
from alignlab.judges.base import JudgeItem
from alignlab.judges.wording import WORD_FORM, WORDINGS, build_prompt
from alignlab.models.base import load_base

CUTS, WORDS = (0, 10, 20, 40), 48


def main() -> None:
    """Ask both ways and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=160)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    base = load_base(
        PretrainedConfig("hf", "judge", None, 1e-5, given.model, None, None, "float32", None, "sdpa"),
        folder=None,
        device="cpu",
    )
    words = [[base.tokenizer.encode(word, add_special_tokens=False)[0]] for word in ("yes", "no")]
    prompts = [base.encoder.prompt_ids(text) for text in itertools.islice(questions(given.data), given.questions)]
    shared(base.model, prompts[:2], words)  # detects the batch layout before anything is timed
    middle = len(prompts) // 2
    first, seconds_first = timed(lambda: plain(base.model, prompts[:middle], words))
    together, seconds = timed(lambda: shared(base.model, prompts, words))
    second, seconds_second = timed(lambda: plain(base.model, prompts[middle:], words))
    alone, seconds_alone = torch.cat([first, second]), seconds_first + seconds_second
    tokens = sum(map(len, prompts))
    figures = {
        "questions": len(prompts),
        "threads": torch.get_num_threads(),
        "tokens": tokens,
        "distinct_tokens": tokens - sum(common_prefix(*pair) for pair in itertools.pairwise(sorted(prompts))),
        "seconds_alone": seconds_alone,
        "seconds_shared": seconds,
        "ratio": seconds_alone / seconds,
        "greatest_difference": float((together - alone).abs().max()),
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }
    print(json.dumps(figures, indent=2))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


def questions(file: Path) -> Iterator[str]:
    """The judge's prompts about each row's answer."""
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines()):
        row = json.loads(line)
        words = row["response_0"].split()
        for cut in CUTS:
            begun, rest = " ".join(words[:cut]), " ".join(words[cut : cut + WORDS])
            if rest:
                item = JudgeItem(f"{number}-{cut}", row["prompt"], begun, rest)
                yield from (build_prompt(item, wording, form=WORD_FORM) for wording in WORDINGS)


def shared(model: Any, prompts: list[list[int]], words: list[list[int]]) -> torch.Tensor:
    """Probabilities of the words after each prompt as the judge computes them, shape (prompts, words)."""
    found = torch.empty(len(prompts), len(words))
    for batch, masses in next_token_masses(model, prompts, words, max_rows=None, label="judging"):
        found[batch] = masses
    return found


@torch.inference_mode()
def plain(model: Any, prompts: list[list[int]], words: list[list[int]]) -> torch.Tensor:
    """The same by one forward of transformers a prompt."""
    found = []
    for ids in prompts:
        share_V = model(input_ids=torch.tensor([ids]), logits_to_keep=1, use_cache=False).logits[0, -1].softmax(-1)
        found.append(torch.stack([share_V[word].sum() for word in words]))
    return torch.stack(found)


def timed(run: Any) -> tuple[Any, float]:
    """What it returns, and the seconds of all threads that it takes."""
    begun = time.process_time()
    return run(), time.process_time() - begun


if __name__ == "__main__":
    main()
