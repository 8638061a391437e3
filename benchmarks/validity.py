"""Whether training finds the front: three seeds of the embedded default against the exact optimum.

    python -m benchmarks.validity            # about five minutes on two cores; writes docs/validity.md

Every figure comes from the runs' own result.json; finished runs are not run again.
"""

import argparse
import importlib.metadata
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t  # type: ignore[import-untyped]

from alignlab.cli import main as alignlab
from alignlab.stats import Interval, mean_interval

WEIGHTS = (0, 0.1, 0.3, 0.5, 0.7, 0.9, 1)
COLUMNS = {
    "attained_share": "share of the attainable gain",
    "kl_to_optimum": "KL to the optimum, nats",
    "kl": "KL to the reference, nats",
    "helpful": "helpful",
    "safe": "safe",
    "well_formed": "well-formed",
}
TARGETS = {
    "attained_share": (0.85, None),
    "kl_to_optimum": (None, 0.12),
    "well_formed": (0.98, None),
    "kl": (0.0, None),
}
CROSSED = (0.1, 0.5)
"""Weights that are also trained with one reference for all seeds."""
SLOPE_RANGE = (0.8, 1.2)

PAGE = """# Validity: does training find the front?

Made by `make validity` (`python -m benchmarks.validity`); not edited by hand.

The embedded default (`model=tiny dataset=toy`) over seeds {seeds}. The seed changes everything: the reference model,
the pairs, their labels, the adapter's initial weights, the order of the rows and the evaluation's samples, so the
intervals over seeds hold them all. At each w the pairs of the heavier objective are trained on. All figures are on
held-out prompts, which neither the reference nor a policy was trained on. The exact front is known
because the rewards are: see `alignlab/front/exact.py`.

Mean over seeds ± half of the 95% t-interval over seeds:

{header}
{rule}
{rows}

Over all {num_runs} runs: {worst}.

Where the spread between runs comes from, as standard deviations. *Between seeds* is what is seen, everything changing
with the seed. *Evaluation* is the part that the held-out prompts and samples of one run leave open (the root mean
square of its standard error); what is left is the reference, the pairs and the training together. *One reference* is
the spread over the same seeds where all start from seed {first}'s reference, so that pairs, training and samples alone
differ. All seeds are asked the same held-out prompts, so that the evaluation's own part can exceed what is seen between
them: then nothing is left that training or the reference would have to explain.

{components}

Slope of each implicit reward on its gold reward, within held-out prompts, with its 95% interval over prompts: {slopes}.

Targets, for every single run: share at least 0.85, KL to the optimum at most 0.12 nats, well-formed at least 0.98,
KL to the reference never negative, slope within 0.8 to 1.2. {targets}

What falls short: trained points lie inside the exact front, most where it is farthest from the reference, and the share
never reaches 1. The share is least certain where there is least to gain: at w=0.5 the whole gain is some 0.17 nats.

{seconds:.0f} seconds of runs in all. {versions}.
"""


def main() -> int:
    """Runs the sweep, reads its results, writes the page; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path("docs/validity.md"))
    parser.add_argument("overrides", nargs="*", help="further alignlab overrides")
    arguments = parser.parse_args()
    sweep = ["-m", f"w={','.join(map(str, WEIGHTS))}", f"paths.runs={arguments.runs}"]
    for seed in map(int, arguments.seeds.split(",")):
        code = alignlab([*sweep, f"seed={seed}", f"model.pretraining.seed={seed}", *arguments.overrides])
        if code:
            return code
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    alone = arguments.runs / "one_reference"
    crossed = ["-m", f"w={','.join(map(str, CROSSED))}", f"seed={','.join(map(str, seeds[1:]))}"]
    crossed += [f"model.pretraining.seed={seeds[0]}", f"paths.runs={alone}", *arguments.overrides]
    if len(seeds) > 1 and (code := alignlab(crossed)):
        return code
    policies = {w: [policy_in(arguments.runs, w, seed) for seed in seeds] for w in WEIGHTS}
    one_reference = {
        w: [policies[w][0], *(policy_in(alone, w, seed) for seed in seeds[1:])] for w in CROSSED if len(seeds) > 1
    }
    margins = [one for seed in seeds for one in rewards_of(arguments.runs, seed)]
    missed = list(misses(policies, margins))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(page(policies, one_reference, margins, seeds, missed))
    print(f"{arguments.out}: {'every target held' if not missed else '; '.join(missed)}")
    return 1 if missed else 0


def policy_in(runs: Path, w: float, seed: int) -> dict[str, Any]:
    """The newest result of a policy."""
    return one_result(runs, f"modpo/tiny/toy/w={w}/seed={seed}-*")


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
    return next(name for name, weight in result["weights"].items() if weight == 1)


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


def misses(policies: dict[float, list[dict[str, Any]]], margins: Sequence[dict[str, Any]]) -> Iterable[str]:
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


def components(
    policies: dict[float, list[dict[str, Any]]], one_reference: dict[float, list[dict[str, Any]]], metric: str
) -> list[str]:
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
        rows.append(
            "| "
            + " | ".join([COLUMNS[metric], f"{w:g}", *cells, f"{np.std(alone, ddof=1):.3f}" if alone else ""])
            + " |"
        )
    return rows


def standard_error(result: dict[str, Any], metric: str) -> float:
    """Of a run's mean, from its 95% t-interval over prompts."""
    record = result["metrics"][metric]
    low, high = record["ci95"]
    return float((high - low) / 2 / t.ppf(0.975, record["groups"] - 1))


def page(
    policies: dict[float, list[dict[str, Any]]],
    one_reference: dict[float, list[dict[str, Any]]],
    margins: Sequence[dict[str, Any]],
    seeds: Sequence[int],
    missed: Sequence[str],
) -> str:
    """docs/validity.md."""
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers", "trl", "peft")
    )
    every = [result for results in policies.values() for result in results]
    worst = {
        "least share": min(mean_of(result, "attained_share") for result in every),
        "greatest KL to the optimum": max(mean_of(result, "kl_to_optimum") for result in every),
        "least well-formed": min(mean_of(result, "well_formed") for result in every),
        "least KL to the reference": min(mean_of(result, "kl") for result in every),
        "least effective sample size": min(mean_of(result, "exact_ess") for result in every),
    }
    header = "| w | " + " | ".join(COLUMNS.values()) + " |"
    rows = [
        "| " + " | ".join([f"{w:g}", *(show(over_seeds(results, name)) for name in COLUMNS)]) + " |"
        for w, results in policies.items()
    ]
    slopes = ", ".join(
        "{}, seed {}: {:.3f} [{:.3f}, {:.3f}]".format(
            objective_of(result), result["seed"], slope_of(result)["mean"], *slope_of(result)["ci95"]
        )
        for result in margins
    )
    seconds = np.sum([result["seconds"]["total"] for result in every])
    targets = "Every target held." if not missed else "Missed: " + "; ".join(missed) + "."
    spread = ["| | w | between seeds | evaluation | the rest | one reference |", "|" + "---|" * 6]
    for metric in ("attained_share", "kl_to_optimum"):
        spread += components(policies, one_reference, metric) if len(seeds) > 1 else []
    return PAGE.format(
        first=seeds[0],
        components="\n".join(spread),
        seeds=", ".join(map(str, seeds)),
        header=header,
        rule="|" + "---|" * (len(COLUMNS) + 1),
        rows="\n".join(rows),
        num_runs=len(every),
        worst=", ".join(f"{name} {value:.3f}" for name, value in worst.items()),
        slopes=slopes,
        targets=targets,
        seconds=seconds,
        versions=versions,
    )


def show(interval: Interval) -> str:
    """Mean ± half width."""
    half = interval.half_width
    return f"{interval.mean:.3f} ± {half:.3f}" if half is not None else f"{interval.mean:.3f}"


if __name__ == "__main__":
    raise SystemExit(main())
