"""Every method at the same w on the toy: what each attains beside the exact front, and what it costs.

    python -m benchmarks.methods            # three seeds; writes docs/methods.md and docs/methods.png

Every figure comes from the runs' own result.json; finished runs are not run again.
"""

import argparse
import importlib.metadata
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from alignlab.cli import main as alignlab
from alignlab.front.collect import FrontPoint, collect, find_runs
from alignlab.front.methods import cost_of
from alignlab.front.points import points_of
from alignlab.stats import Interval, mean_interval

WEIGHTS = (0.1, 0.3, 0.5, 0.7, 0.9)
BASE = "modpo"
METHODS = {
    "modpo": (
        "a run for each w. Worth it for a few chosen w: each is one plain LoRA, and nothing is mixed when it is used."
    ),
    "rebel": (
        "as modpo, but it is taught reward differences and divides by no weight; labels are not used. Worth it where "
        "good rewards can be had (docs/validity.md has it on the true ones); on those of two DPO policies, as here, it "
        "does no better than modpo."
    ),
    "modpo_conditioned": (
        "one run of rebel's loss for every w, here with the steps of one such run, a fifth of the others'. "
        "Worth it where many w are wanted, or w is chosen later."
    ),
    "soup": (
        "nothing is trained beside the two ends, which modpo needs for its rewards anyway: any w in seconds. "
        "Worth trying first."
    ),
    "logit_mix": (
        "nothing is trained beside the two ends either, but each token costs a forward of each, at every "
        "request. Worth it to look at a w before training it."
    ),
    "best_of_n": (
        "nothing is trained at all, but the rewards must be at hand at every request, and it samples n times."
        " Its KL is set by n, not by beta: its share is good only where n happens to fit."
    ),
    "dpo_lw": (
        "a run for each w on the pairs of both objectives. Worth it where no reward is to be had: between the ends it "
        "attains less than modpo."
    ),
    "raco": (
        "as dpo_lw, with the objectives' gradients kept from undoing each other. On the toy that costs more than it "
        "brings: it attains less than dpo_lw on every seed."
    ),
    "grpo": (
        "online, on the true rewards, a run for each w: what an adapter of this size can reach. Worth it where a "
        "reward can be asked tens of thousands of times for each w."
    ),
}

GRPO = (
    "algorithm=grpo_own_units",
    "reward=gold",
    "trainer.max_steps=300",
    "trainer.per_device_train_batch_size=64",
    "trainer.learning_rate=1e-3",
)
"""docs/grpo.md's settings on the toy; its rewards are the true ones, so it is a sweep of its own."""

DECODING = {"logit_mix": "1.7", "best_of_n": "4"}
"""Times plain sampling, of methods that do more."""

PAGE = """# Methods: which way to the front, and what it costs

Made by `python -m benchmarks.methods`; not edited by hand. The sentences on each method are in that file.

`--config-name methods` on the embedded default{overrides}, seeds {seeds}, w = {weights}.
The seed changes everything, the reference model too. All methods see the same labelled pairs; `best_of_n` (n=4) and
`grpo` (with the settings of docs/grpo.md) see the true rewards instead. The rewards of modpo, rebel and the conditioned
adapter, and the policies that soups and logit mixtures mix, are the same two DPO policies. All figures are on held-out
prompts, beside the exact front (`alignlab/front/exact.py`).

![The methods beside the exact front, seed {first}](methods.png)

## What they attain

Share of the attainable gain of J = w.r - beta KL, mean over seeds, and each seed's:

{shares}

KL to the optimum in nats, mean over seeds, and the largest:

{kls}

Mean share over the {num_w} w, and its difference to {base}'s, paired by seed (95% t-interval over {num_seeds} seeds):

{means}

{told}

## What they cost

Of one seed, for all {num_w} w together, beyond what all share (reference model, and the two DPO policies: {ends}
optimizer steps): optimizer steps of 32 pairs (grpo: of 64 answers, which it also samples and scores), and weights that
are kept. Decoding is in units of plain sampling of one policy (`benchmarks.mixture` measured the mixture's; n=4 samples
are four). Seconds are in each front's own table: here other work shared the processor.

{costs}

## When each is worth it

{sentences}

{versions}.
"""

Seeds = dict[int, dict[str, dict[float, FrontPoint]]]
"""Seed -> method -> w -> its point."""


def main() -> int:
    """Run the sweeps, read their results, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path("docs/methods.md"))
    parser.add_argument("overrides", nargs="*", help="further alignlab overrides")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    for seed in seeds:
        own = [f"seed={seed}", f"model.pretraining.seed={seed}", f"paths.runs={arguments.runs}", *arguments.overrides]
        for sweep in ((), GRPO):
            code = alignlab(["--config-name", "methods", *sweep, *own])
            if code:
                return code
    found = points_of_seeds(arguments.runs, seeds)
    shown = [points[w].folder for points in found[seeds[0]].values() for w in WEIGHTS]
    code = alignlab(
        ["algorithm=front", f"algorithm.runs=[{','.join(map(str, shown))}]", f"paths.runs={arguments.runs}"]
    )
    if code:
        return code
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(page(found, arguments.runs, arguments.overrides))
    shutil.copyfile(newest_picture(arguments.runs, found[seeds[0]]), arguments.out.with_suffix(".png"))
    print(arguments.out)
    return 0


def points_of_seeds(runs: Path, seeds: Sequence[int]) -> Seeds:
    """Every method's point at each seed and w."""
    found: Seeds = {seed: {} for seed in seeds}
    folders = [
        point
        for name in METHODS
        if (runs / name).is_dir()
        for run in find_runs(runs / name / "tiny" / "toy")
        for point in points_of(run)
    ]
    for seed in seeds:
        of_seed = [one for one in folders if json.loads((one / "result.json").read_text()).get("seed") == seed]
        for point in collect(of_seed).points:
            if point.first_weight in WEIGHTS:
                found[seed].setdefault(point.algorithm, {})[float(point.first_weight)] = point
    for seed, methods in found.items():
        for name, points in methods.items():
            if set(points) != set(WEIGHTS):
                raise SystemExit(f"{name} seed={seed}: has w={sorted(points)}, not {WEIGHTS}; take a --runs of its own")
    return found


def page(found: Seeds, runs: Path, overrides: Sequence[str]) -> str:
    """docs/methods.md.

    Args:
        found: the points.
        runs: root of the runs.
        overrides: beyond the sweep's own; those of `paths` and `tracker` change no figure and are not shown.
    """
    own = [one for one in overrides if not one.startswith(("paths.", "tracker"))]
    seeds = list(found)
    names = [name for name in METHODS if all(name in found[seed] for seed in seeds)]
    head = ["method", *(f"w={w:g}" for w in WEIGHTS)]
    shares, kls, costs = [], [], []
    for name in names:
        by_w = [[found[seed][name][w] for seed in seeds] for w in WEIGHTS]
        shares.append([name, *(each(points, "attained_share") for points in by_w)])
        kls.append([name, *(mean_and_most(points, "kl_to_optimum") for points in by_w)])
        costs.append([name, *cost_row(name, [point for points in by_w for point in points], len(seeds))])
    means = {name: [mean_share(found[seed][name]) for seed in seeds] for name in names}
    rows, apart = [], []
    for name in names:
        differences = [own - base for own, base in zip(means[name], means[BASE], strict=True)]
        mean = np.mean(means[name])
        against = mean_interval(differences, list(range(len(seeds))))
        if against.bounds is not None and not against.bounds[0] <= 0 <= against.bounds[1]:
            apart.append(name)
        shown = "" if name == BASE else show_signed(against)
        rows.append([name, f"{mean:.3f} ({' '.join(f'{value:.3f}' for value in means[name])})", shown])
    versions = ("torch", "transformers", "trl", "peft")
    return PAGE.format(
        overrides="".join(f", `{one}`" for one in own),
        seeds=", ".join(map(str, seeds)),
        weights=", ".join(f"{w:g}" for w in WEIGHTS),
        first=seeds[0],
        shares=markdown([head, *shares]),
        kls=markdown([head, *kls]),
        num_w=len(WEIGHTS),
        num_seeds=len(seeds),
        base=BASE,
        told=f"Told from {BASE} by this interval: {', '.join(apart) or 'none'}. Not told from it: "
        + ", ".join(name for name in names if name not in (*apart, BASE))
        + ".",
        means=markdown([["method", "mean share (each seed)", f"against {BASE}"], *rows]),
        ends=sum(steps_of(folder) for folder in reward_runs(runs, seeds[0])),
        costs=markdown([["method", "optimizer steps", "decoding", "adapters, MB"], *costs]),
        sentences="\n".join(f"- **{name}**: {METHODS[name]}" for name in names),
        versions=", ".join(f"{name} {importlib.metadata.version(name)}" for name in versions),
    )


def each(points: Sequence[FrontPoint], metric: str) -> str:
    """Mean over the seeds, and each seed's."""
    values = [value_of(point, metric) for point in points]
    return f"{np.mean(values):.3f} ({' '.join(f'{value:.2f}' for value in values)})"


def mean_and_most(points: Sequence[FrontPoint], metric: str) -> str:
    """Mean over the seeds, and the largest."""
    values = [value_of(point, metric) for point in points]
    return f"{np.mean(values):.3f} ({max(values):.3f})"


def mean_share(points: dict[float, FrontPoint]) -> float:
    """Mean attained share over the w."""
    return float(np.mean([value_of(points[w], "attained_share") for w in WEIGHTS]))


def value_of(point: FrontPoint, metric: str) -> float:
    """The mean of a metric; NaN where it is unknown, so that it shows."""
    value = point.metrics[metric].mean if metric in point.metrics else None
    return float("nan") if value is None else value


def cost_row(name: str, points: Sequence[FrontPoint], num_seeds: int) -> list[str]:
    """Steps, decoding and megabytes of one seed, in the mean over the seeds."""
    costs = [cost_of(point.folder) for point in points]
    steps = sum(steps_of(home) for home in {one.home for one in costs if one.training is not None})
    megabytes = sum(one.adapter_bytes or 0 for one in costs) / 1e6
    return [f"{steps / num_seeds:.0f}", DECODING.get(name, "1"), f"{megabytes / num_seeds:.2f}"]


def steps_of(folder: Path) -> int:
    """Optimizer steps of a run; 0 where it did not train."""
    file = folder / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    return max((int(row.get("step") or 0) for row in rows), default=0)


def reward_runs(runs: Path, seed: int) -> list[Path]:
    """The runs that made a seed's two DPO policies, the newest of each objective."""
    files = runs.glob(f"reward_model/tiny/toy/seed={seed}-*/result.json")
    by_age = sorted(files, key=lambda file: file.stat().st_mtime)
    return list({json.dumps(json.loads(file.read_text())["weights"]): file.parent for file in by_age}.values())


def newest_picture(runs: Path, methods: dict[str, dict[float, FrontPoint]]) -> Path:
    """The picture of the sweep that holds these runs."""
    wanted = {points[w].folder.resolve() for points in methods.values() for w in WEIGHTS}
    for file in sorted(runs.glob("front/tiny/toy/*/front.csv"), key=lambda file: -file.stat().st_mtime):
        held = {(file.parent / line.split(",")[0]).resolve() for line in file.read_text().splitlines()[1:]}
        if wanted <= held:
            return file.parent / "front.png"
    raise SystemExit(f"{runs}/front: no sweep holds every method's runs")


def show_signed(interval: Interval) -> str:
    """The mean with its sign, and its interval."""
    assert interval.mean is not None
    ends = "unknown" if interval.bounds is None else "[{:+.3f}, {:+.3f}]".format(*interval.bounds)
    return f"{interval.mean:+.3f} {ends}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


if __name__ == "__main__":
    raise SystemExit(main())
