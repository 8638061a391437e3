"""Whether training finds the front: three seeds of the embedded default on two kernels, against the exact optimum.

    python -m benchmarks.validity            # about forty minutes on two cores; writes docs/validity.md

MODPO at seven weights, and REBEL on the true rewards at five. A kernel is what ATEN_CPU_CAPABILITY selects: it rounds
as another processor does. Every figure comes from the runs' own result.json; finished runs are not run again.
"""

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t  # type: ignore[import-untyped]

from alignlab.stats import Interval, mean_interval
from benchmarks.methods import markdown

WEIGHTS = (0, 0.1, 0.3, 0.5, 0.7, 0.9, 1)
COLUMNS = {
    "attained_share": "share of the attainable gain",
    "kl_to_optimum": "KL to the optimum, nats",
    "kl": "KL to the reference, nats",
    "helpful": "helpful",
    "safe": "safe",
    "well_formed": "well-formed",
}
WELL_FORMED = 0.98
"""Least share of a run's samples."""
TARGETS = {
    "attained_share": (0.85, None),
    "kl_to_optimum": (None, 0.12),
    "well_formed": (WELL_FORMED, None),
    "kl": (0.0, None),
}
CROSSED = (0.1, 0.5)
"""Weights that are also trained with one reference for all seeds."""
SAMPLES = "generator.samples=256"
"""A prompt, four times the default, whose share at w=0.5 has a standard error of 0.03."""
SLOPE_RANGE = (0.8, 1.2)

REBEL = ("algorithm=rebel", "reward=gold", "algorithm.normalise=false", "algorithm.beta=1")
"""MODPO's objective, taught by the true rewards' differences."""
REBEL_WEIGHTS = (0.1, 0.3, 0.5, 0.7, 0.9)
REBEL_TARGETS = {0.1: 0.94, 0.3: 0.94, 0.5: 0.85, 0.7: 0.94, 0.9: 0.94}
"""w -> least mean share over all runs."""
REBEL_KL = (0.03, 0.05)
"""Greatest KL to the optimum: in the mean, and of a run."""

Results = dict[float, list[dict[str, Any]]]
"""w -> result.json of each seed."""

PAGE = """# Validity: does training find the front?

Made by `make validity` (`python -m benchmarks.validity`); not edited by hand.

The embedded default (`model=tiny dataset=toy`) over seeds {seeds} and kernels {kernels} (`ATEN_CPU_CAPABILITY`, which
rounds as another processor does). The seed changes everything: the reference model, the pairs, their labels, the
adapter's initial weights, the order of the rows and the evaluation's samples, so the intervals over seeds hold them
all. A kernel's runs start from references of its own. At each w the pairs of the heavier objective are trained on. All
figures are on held-out prompts, which neither the reference nor a policy was trained on, with 256 samples each where
the default draws 64. The exact front is known because the rewards are: see `alignlab/front/exact.py`.

Mean over seeds ± half of the 95% t-interval over seeds:

{tables}

Over all {num_runs} runs: {worst}.

Where the spread between runs comes from, as standard deviations. *Between seeds* is what is seen, everything changing
with the seed. *Evaluation* is the part that the held-out prompts and samples of one run leave open (the root mean
square of its standard error); what is left is the reference, the pairs and the training together. *One reference* is
the spread over the same seeds where all start from seed {first}'s reference, so that pairs, training and samples alone
differ; kernel {first_kernel} alone. All seeds are asked the same held-out prompts, so that the evaluation's own part
can exceed what is seen between them: then nothing is left that training or the reference would have to explain.

{components}

Slope of each implicit reward on its gold reward, within held-out prompts, with its 95% interval over prompts:
{slopes}.

Targets, for every single run: share at least 0.85, KL to the optimum at most 0.12 nats, well-formed at least 0.98,
KL to the reference never negative, slope within 0.8 to 1.2. {targets}

What falls short: trained points lie inside the exact front, most where it is farthest from the reference, and the share
never reaches 1. The share is least certain where there is least to gain: at w=0.5 the whole gain is some 0.17 nats.

## REBEL on the true rewards

`{rebel_command}`, with MODPO's number of
optimizer steps a run. Mean over the {num_rebel} runs of a w (seeds and kernels), and in parentheses the least share,
the greatest KL and the least well-formed share of a run:

{rebel_table}

Targets: mean share at least 0.94, at w=0.5 at least 0.85; KL to the optimum at most 0.03 in the mean and 0.05 in every
run; well-formed at least 0.98. {rebel_targets}

{seconds:.0f} seconds of runs in all. {versions}.
"""


def main() -> int:
    """Run the sweeps, read their results, write the page; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated")
    parser.add_argument("--kernels", default="avx2,default", help="values of ATEN_CPU_CAPABILITY, comma-separated")
    parser.add_argument("--runs", type=Path, default=Path("runs/validity"), help="a folder a kernel is made in it")
    parser.add_argument("--out", type=Path, default=Path("docs/validity.md"))
    parser.add_argument("overrides", nargs="*", help="further alignlab overrides")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    kernels = arguments.kernels.split(",")
    alone = arguments.runs / kernels[0] / "one_reference"
    for kernel in kernels:
        root = arguments.runs / kernel
        for seed in seeds:
            own = [
                f"seed={seed}",
                f"model.pretraining.seed={seed}",
                f"paths.runs={root}",
                SAMPLES,
                *arguments.overrides,
            ]
            alignlab(kernel, root, ["-m", f"w={','.join(map(str, WEIGHTS))}", *own])
            alignlab(kernel, root, ["-m", *REBEL, f"w={','.join(map(str, REBEL_WEIGHTS))}", *own])
    if len(seeds) > 1:
        crossed = ["-m", f"w={','.join(map(str, CROSSED))}", f"seed={','.join(map(str, seeds[1:]))}"]
        crossed += [f"model.pretraining.seed={seeds[0]}", f"paths.runs={alone}", SAMPLES, *arguments.overrides]
        alignlab(kernels[0], arguments.runs / kernels[0], crossed)
    found = {kernel: results_of(arguments.runs / kernel, "modpo", WEIGHTS, seeds) for kernel in kernels}
    rebel = {kernel: results_of(arguments.runs / kernel, "rebel", REBEL_WEIGHTS, seeds) for kernel in kernels}
    first = found[kernels[0]]
    one_reference = {
        w: [first[w][0], *(one_result(alone, pattern("modpo", w, seed)) for seed in seeds[1:])]
        for w in CROSSED
        if len(seeds) > 1
    }
    margins = {
        kernel: [one for seed in seeds for one in rewards_of(arguments.runs / kernel, seed)] for kernel in kernels
    }
    missed = [f"kernel {kernel}: {line}" for kernel in kernels for line in misses(found[kernel], margins[kernel])]
    missed_by_rebel = list(rebel_misses(rebel))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(page(found, rebel, one_reference, margins, missed, missed_by_rebel))
    every = [*missed, *missed_by_rebel]
    print(f"{arguments.out}: {'every target held' if not every else '; '.join(every)}")
    return 1 if every else 0


def alignlab(kernel: str, root: Path, arguments: Sequence[str]) -> None:
    """Run one sweep in a process that computes with one kernel.

    Args:
        kernel: value of ATEN_CPU_CAPABILITY, read once by a process.
        root: holds the kernel's cache, since references of different kernels differ.
        arguments: the command line.

    Raises:
        SystemExit: with the sweep's exit code, if it fails.
    """
    command = [sys.executable, "-m", "alignlab", *arguments, f"paths.cache={root / 'cache'}"]
    ended = subprocess.run(command, env={**os.environ, "ATEN_CPU_CAPABILITY": kernel}, check=False)
    if ended.returncode:
        raise SystemExit(ended.returncode)


def results_of(root: Path, algorithm: str, weights: Sequence[float], seeds: Sequence[int]) -> Results:
    """The newest result of every weight and seed.

    Args:
        root: a kernel's runs.
        algorithm: its name.
        weights: w of the runs.
        seeds: seeds of the runs.
    """
    return {w: [one_result(root, pattern(algorithm, w, seed)) for seed in seeds] for w in weights}


def pattern(algorithm: str, w: float, seed: int) -> str:
    """Where a run's folder lies below its root."""
    return f"{algorithm}/tiny/toy/w={w}/seed={seed}-*"


def one_result(runs: Path, pattern: str) -> dict[str, Any]:
    """The newest result that the pattern finds."""
    files = sorted(runs.glob(f"{pattern}/result.json"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise SystemExit(f"{runs}/{pattern}: no result.json")
    result: dict[str, Any] = json.loads(files[-1].read_text())
    return result


def rewards_of(runs: Path, seed: int) -> list[dict[str, Any]]:
    """The newest implicit reward of each objective that a seed's runs made."""
    files = sorted(runs.glob(f"reward_model/tiny/toy/seed={seed}-*/result.json"), key=lambda file: file.stat().st_mtime)
    return list({objective_of(result): result for result in (json.loads(file.read_text()) for file in files)}.values())


def objective_of(result: dict[str, Any]) -> str:
    """The objective that a reward was trained on."""
    return next(str(name) for name, weight in result["weights"].items() if weight == 1)


def slope_of(result: dict[str, Any]) -> dict[str, Any]:
    """The slope of a reward on its objective's true one."""
    slope: dict[str, Any] = result["metrics"][f"{objective_of(result)}_slope"]
    return slope


def mean_of(result: dict[str, Any], metric: str) -> float:
    """A metric's mean."""
    return float(result["metrics"][metric]["mean"])


def over_seeds(results: Iterable[dict[str, Any]], metric: str) -> Interval:
    """Mean over seeds with its 95% t-interval."""
    values = [mean_of(result, metric) for result in results]
    return mean_interval(values, list(range(len(values))))


def misses(policies: Results, margins: Sequence[dict[str, Any]]) -> Iterable[str]:
    """One line for every run that misses a target."""
    for w, results in policies.items():
        for metric, (low, high) in TARGETS.items():
            for result in results:
                value = mean_of(result, metric)
                if (low is not None and value < low) or (high is not None and value > high):
                    yield f"w={w} seed={result['seed']}: {metric}={value:.3f}"
    for result in margins:
        slope = float(slope_of(result)["mean"])
        if not SLOPE_RANGE[0] <= slope <= SLOPE_RANGE[1]:
            yield f"reward of {objective_of(result)}, seed={result['seed']}: slope={slope:.3f}"


def rebel_misses(rebel: dict[str, Results]) -> Iterable[str]:
    """One line for every target that REBEL misses."""
    for w, least in REBEL_TARGETS.items():
        results = [result for found in rebel.values() for result in found[w]]
        share, kl_mean = (
            np.mean([mean_of(result, name) for result in results]) for name in ("attained_share", "kl_to_optimum")
        )
        if share < least:
            yield f"rebel w={w}: mean attained_share={share:.3f}"
        if kl_mean > REBEL_KL[0]:
            yield f"rebel w={w}: mean kl_to_optimum={kl_mean:.3f}"
    for kernel, found in rebel.items():
        for w, results in found.items():
            for result in results:
                if (kl := mean_of(result, "kl_to_optimum")) > REBEL_KL[1]:
                    yield f"rebel kernel {kernel}, w={w} seed={result['seed']}: kl_to_optimum={kl:.3f}"
                if (formed := mean_of(result, "well_formed")) < WELL_FORMED:
                    yield f"rebel kernel {kernel}, w={w} seed={result['seed']}: well_formed={formed:.3f}"


def components(policies: Results, one_reference: Results, metric: str) -> list[list[str]]:
    """One table row a w: standard deviations between seeds, of the evaluation, of the rest, and with one reference.

    Args:
        policies: w -> results by seed, everything changing with it.
        one_reference: w -> the same with one reference for all.
        metric: whose spread it is.
    """
    rows = []
    for w, results in policies.items():
        seen = np.var([mean_of(result, metric) for result in results], ddof=1)
        evaluation = np.mean([standard_error(result, metric) ** 2 for result in results])
        rest = "none" if evaluation >= seen else f"{np.sqrt(seen - evaluation):.3f}"
        alone = [mean_of(result, metric) for result in one_reference.get(w, ())]
        cells = [f"{np.sqrt(seen):.3f}", f"{np.sqrt(evaluation):.3f}", rest]
        rows.append([COLUMNS[metric], f"{w:g}", *cells, f"{np.std(alone, ddof=1):.3f}" if alone else ""])
    return rows


def standard_error(result: dict[str, Any], metric: str) -> float:
    """Of a run's mean, from its 95% t-interval over prompts."""
    record = result["metrics"][metric]
    low, high = record["ci95"]
    return float((high - low) / 2 / t.ppf(0.975, record["groups"] - 1))


def page(
    found: dict[str, Results],
    rebel: dict[str, Results],
    one_reference: Results,
    margins: dict[str, list[dict[str, Any]]],
    missed: Sequence[str],
    missed_by_rebel: Sequence[str],
) -> str:
    """docs/validity.md.

    Args:
        found: MODPO's results by kernel.
        rebel: REBEL's results by kernel.
        one_reference: MODPO's of the first kernel with one reference for all seeds.
        margins: results of the implicit rewards by kernel.
        missed: a line for each target that MODPO misses.
        missed_by_rebel: a line for each target that REBEL misses.
    """
    first_kernel, policies = next(iter(found.items()))
    seeds = [result["seed"] for result in policies[WEIGHTS[0]]]
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers", "trl", "peft")
    )
    every = [result for of_kernel in found.values() for results in of_kernel.values() for result in results]
    of_rebel = [result for of_kernel in rebel.values() for results in of_kernel.values() for result in results]
    spread = [["", "w", "between seeds", "evaluation", "the rest", "one reference"]]
    for metric in ("attained_share", "kl_to_optimum"):
        spread += components(policies, one_reference, metric) if len(seeds) > 1 else []
    return PAGE.format(
        first=seeds[0],
        first_kernel=first_kernel,
        components=markdown(spread),
        seeds=", ".join(map(str, seeds)),
        kernels=", ".join(found),
        tables="\n\n".join(f"Kernel {kernel}:\n\n{table(results)}" for kernel, results in found.items()),
        num_runs=len(every),
        worst=worst_of(every),
        slopes="; ".join(f"kernel {kernel}: {slopes_of(results)}" for kernel, results in margins.items()),
        targets=told(missed),
        rebel_command=" ".join(REBEL),
        num_rebel=len(of_rebel) // len(REBEL_WEIGHTS),
        rebel_table=rebel_table(rebel),
        rebel_targets=told(missed_by_rebel),
        seconds=np.sum([result["seconds"]["total"] for result in (*every, *of_rebel)]),
        versions=versions,
    )


def worst_of(results: Sequence[dict[str, Any]]) -> str:
    """What the worst of all runs has, metric by metric."""
    extremes = {
        "least share": (min, "attained_share"),
        "greatest KL to the optimum": (max, "kl_to_optimum"),
        "least well-formed": (min, "well_formed"),
        "least KL to the reference": (min, "kl"),
        "least effective sample size": (min, "exact_ess"),
    }
    return ", ".join(
        f"{name} {extreme(mean_of(result, metric) for result in results):.3f}"
        for name, (extreme, metric) in extremes.items()
    )


def slopes_of(rewards: Sequence[dict[str, Any]]) -> str:
    """Every implicit reward's slope on the true one, with its interval."""
    return ", ".join(
        "{}, seed {}: {:.3f} [{:.3f}, {:.3f}]".format(
            objective_of(result), result["seed"], slope_of(result)["mean"], *slope_of(result)["ci95"]
        )
        for result in rewards
    )


def told(missed: Sequence[str]) -> str:
    """Whether the targets held, in a sentence."""
    return "Every target held." if not missed else "Missed: " + "; ".join(missed) + "."


def table(policies: Results) -> str:
    """MODPO's rows of one kernel: each metric over seeds."""
    head = ["w", *COLUMNS.values()]
    return markdown(
        [head, *([f"{w:g}", *(show(over_seeds(results, name)) for name in COLUMNS)] for w, results in policies.items())]
    )


def rebel_table(rebel: dict[str, Results]) -> str:
    """REBEL's rows: means over all runs of a w, and the worst run."""
    rows = [["w", COLUMNS["attained_share"], COLUMNS["kl_to_optimum"], COLUMNS["well_formed"]]]
    for w in REBEL_WEIGHTS:
        results = [result for found in rebel.values() for result in found[w]]
        cells = []
        for name, extreme in (("attained_share", min), ("kl_to_optimum", max), ("well_formed", min)):
            values = [mean_of(result, name) for result in results]
            cells.append(f"{np.mean(values):.3f} ({extreme(values):.3f})")
        rows.append([f"{w:g}", *cells])
    return markdown(rows)


def show(interval: Interval) -> str:
    """Mean ± half width."""
    half = interval.half_width
    return f"{interval.mean:.3f} ± {half:.3f}" if half is not None else f"{interval.mean:.3f}"


if __name__ == "__main__":
    raise SystemExit(main())
