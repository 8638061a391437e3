"""How often the intervals of a front hold the truth, and whether a choice keeps its chances, by simulation.

    python -m benchmarks.choosing            # about ten minutes on one core; writes docs/coverage.md

Shape letters: W worlds, K seeds, P prompts, S settings of w, M axes.
"""

import argparse
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from alignlab.data.worlds import toy
from alignlab.front.choice import Candidate, choose
from alignlab.front.exact import Floats, exact_point
from alignlab.front.preview import preview_point
from alignlab.stats import crossed_means
from alignlab.stats.differences import difference_bounds
from alignlab.stats.shares import effective

PAGE = """# Coverage: do the intervals of a front hold the truth?

Made by `python -m benchmarks.choosing`; not edited by hand. Shares of simulated studies whose 95% interval
holds the truth; every study draws its prompts anew, one sample a prompt. {worlds} studies a cell.

## Means, differences, and the w of a target

The w of a target is held exactly where the interval of the interpolated mean at the true w holds the target, which is
counted.

| scores | prompts | mean | paired difference | w of a target |
|---|---|---|---|---|
{means}

Shares, each answer yes or no. At a rate of 0 or 1 all studies look alike, so that their coverage can only be 0 or 1;
beside it an exact interval of so few answers is wider than 95% asks.

| rate | prompts | share | paired difference to a rate of .5 | w of a target |
|---|---|---|---|---|
{shares}

Seeds and prompts together; a seed's own spread in units of the prompts':

| seeds | spread of seeds | prompts | mean |
|---|---|---|---|
{seeds}

## A choice's chances

Chance said minus how often the chosen policy's true mean met its target, {fronts} fronts a row:
`algorithm=choose` picks on half of 40 prompts, the target is uniform over the front's range and a tenth beyond.

| policies | prompts' spread | policies' spread | met | said - met |
|---|---|---|---|---|
{choices}

## What could be had without training

`algorithm=preview` on the toy's requests and demonstrations, whose optimum is known; {previews} studies a cell,
beta 1. A dash: fewer than 50 effective samples on some prompt in most studies, where it says that it knows nothing.

| w | prompts | samples | helpful | safe | KL |
|---|---|---|---|---|---|
{preview}
"""
SHAPES: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Floats]] = {
    "normal": lambda rng, size: rng.normal(size=size),
    "uniform": lambda rng, size: rng.uniform(-1, 1, size=size),
    "two humps": lambda rng, size: np.where(rng.random(size) < 0.3, -1.4, 0.6) + 0.3 * rng.normal(size=size),
    "heavy tails (t, 5)": lambda rng, size: rng.standard_t(5, size=size),
    "skewed (gamma, 4)": lambda rng, size: rng.gamma(4, size=size) / 2 - 2,
    "very skewed (exponential)": lambda rng, size: rng.exponential(size=size) - 1,
}
SIZES = (20, 42, 200)
RATES = (0.0, 0.05, 0.2, 0.5, 0.9, 1.0)


def held(bounds: tuple[Floats, Floats], truth: float) -> str:
    """Share of the worlds whose interval holds the truth."""
    return f"{np.mean((bounds[0] <= truth) & (truth <= bounds[1])):.3f}"


def mean_rows(worlds: int) -> Iterator[str]:
    """Scores of six shapes; two policies share what a prompt adds, and the target lies at a third between them."""
    for name, draw in SHAPES.items():
        for num_prompts in SIZES:
            rng = np.random.default_rng([len(name), num_prompts])
            prompts = draw(rng, (worlds, 1, num_prompts))
            first, second = (prompts + 0.5 * draw(rng, (worlds, 1, num_prompts)) for _ in range(2))
            between = crossed_means(first * 2 / 3 + (second + 0.9) / 3).bounds()
            span = float(np.ptp([first, second]))
            difference = difference_bounds((second - first)[:, 0], span=span)
            mean = crossed_means(first).bounds()
            yield f"| {name} | {num_prompts} | {held(mean, 0)} | {held(difference, 0)} | {held(between, 0.3)} |"


def share_rows(worlds: int) -> Iterator[str]:
    """Answers that are yes or no."""
    for rate in RATES:
        for num_prompts in SIZES:
            rng = np.random.default_rng([round(100 * rate), num_prompts])
            first, second = ((rng.random((worlds, num_prompts)) < one).astype(float) for one in (rate, 0.5))
            share = effective(first, np.ones_like(first), num_values=num_prompts).bounds()
            difference = difference_bounds(second - first, span=1.0)
            mixed = crossed_means((first * 2 / 3 + second / 3)[:, None], share_of=round(1.8 * num_prompts)).bounds()
            cells = (held(share, rate), held(difference, 0.5 - rate), held(mixed, rate * 2 / 3 + 0.5 / 3))
            yield f"| {rate:g} | {num_prompts} | {' | '.join(cells)} |"


def seed_rows(worlds: int) -> Iterator[str]:
    """Seeds that add something of their own on top of the prompts that all of them answer."""
    for num_seeds in (3, 5):
        for spread in (0.0, 0.15, 0.5, 2.0):
            for num_prompts in (20, 60):
                rng = np.random.default_rng([num_seeds, round(100 * spread), num_prompts])
                values = rng.normal(size=(worlds, 1, num_prompts)) + 0.5 * rng.normal(
                    size=(worlds, num_seeds, num_prompts)
                )
                values += spread * rng.normal(size=(worlds, num_seeds, 1))
                yield f"| {num_seeds} | {spread:g} | {num_prompts} | {held(crossed_means(values).bounds(), 0)} |"


def choice_rows(fronts: int) -> Iterator[str]:
    """Fronts of several policies, one objective against the other."""
    prompts = [f"prompt {index}" for index in range(40)]
    for num_policies in (3, 5, 9, 17):
        for of_prompts, of_policies in ((1.0, 0.5), (0.2, 1.0)):
            rng = np.random.default_rng([num_policies, round(10 * of_prompts)])
            said, met, w = [], [], np.linspace(0.1, 0.9, num_policies)
            while len(said) < fronts:
                span, bend = rng.uniform(0.5, 2), rng.uniform(0.3, 3)
                truth_SM = np.stack([span * w, span * (1 - w**bend)], axis=1)
                noise = of_prompts * rng.normal(size=(1, 40, 2)) + of_policies * rng.normal(size=(num_policies, 40, 2))
                target = truth_SM[-1, 1] + rng.uniform(-0.1, 1.1) * (truth_SM[0, 1] - truth_SM[-1, 1])
                values = truth_SM[:, None] + noise
                policies = [Candidate("", {}, one, (None, None), Path()) for one in values]
                found = choose(policies, prompts, {1: float(target)})
                if found is not None and found.chance is not None:
                    said.append(found.chance)
                    met.append(truth_SM[found.index, 1] >= target)
            cells = f"{of_prompts:g} | {of_policies:g} | {np.mean(met):.2f} | {np.mean(said) - np.mean(met):+.3f}"
            yield f"| {num_policies} | {cells} |"


def preview_rows(studies: int) -> Iterator[str]:
    """Requests and responses drawn anew from a pool whose optimum is known."""
    rng = random.Random(0)
    asked = toy.all_prompts()[::2]
    said = [[toy.demonstration(prompt, rng) for _ in range(300)] for prompt in asked]
    golds = (toy.helpful, toy.safe)
    pool_PSM = np.array(
        [[[gold(prompt, text) for gold in golds] for text in texts] for prompt, texts in zip(asked, said, strict=True)]
    )
    draws = np.random.default_rng(0)
    for num_prompts, num_samples in ((42, 256), (100, 256), (400, 256), (100, 1024)):
        for first in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0):
            weights = (first, 1 - first)
            whole = exact_point(pool_PSM, weights=weights, beta=1.0, min_ess=0)
            truth, hits = np.array([*whole.means_M, whole.kl]), []
            for _ in range(studies):
                rows = draws.integers(len(pool_PSM), size=num_prompts)
                columns = draws.integers(pool_PSM.shape[1], size=(num_prompts, num_samples))
                found = preview_point(pool_PSM[rows[:, None], columns], weights=weights, beta=1.0, min_ess=50)
                if found.means is not None and found.kl is not None:
                    ends = [one.bounds or (np.nan, np.nan) for one in (*found.means, found.kl)]
                    hits.append([low <= value <= high for (low, high), value in zip(ends, truth, strict=True)])
            known = len(hits) >= studies / 2
            cells = " | ".join(f"{share:.3f}" for share in np.mean(hits, axis=0)) if known else "- | - | -"
            yield f"| {first:g} | {num_prompts} | {num_samples} | {cells} |"


def main() -> int:
    """Simulate everything and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=4000)
    parser.add_argument("--fronts", type=int, default=2000)
    parser.add_argument("--previews", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("docs/coverage.md"))
    given = parser.parse_args()
    page = PAGE.format(
        worlds=given.worlds,
        fronts=given.fronts,
        previews=given.previews,
        means="\n".join(mean_rows(given.worlds)),
        shares="\n".join(share_rows(given.worlds)),
        seeds="\n".join(seed_rows(given.worlds)),
        choices="\n".join(choice_rows(given.fronts)),
        preview="\n".join(preview_rows(given.previews)),
    )
    given.out.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
