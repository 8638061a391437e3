"""What could be had without training, from samples of the reference: which beta and w are worth training."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from alignlab.config.plan import Plan
from alignlab.config.schema import PreviewConfig
from alignlab.errors import ConfigError
from alignlab.evaluation.measure import GENERATIONS, SCORES
from alignlab.front.exact import Floats
from alignlab.front.preview import MOST_OF_SAMPLES, best_of_n, preview_point
from alignlab.front.previewed import OPTIMUM, PREVIEW_JSON
from alignlab.io.atomic import replacing, write_json
from alignlab.io.jsonl import read_jsonl
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome, require_finished
from alignlab.stats import Interval

PREVIEW_CSV = "preview.csv"


def run(plan: Plan[PreviewConfig], run: RunFolder, outcome: Outcome) -> None:
    """Estimate the attainable front from the reference's own evaluation, which is made unless it is there.

    Args: every job's, see `alignlab.jobs`.
    """
    algorithm = plan.algorithm
    behind = run.make_run(plan.evaluation(None))
    result = require_finished("algorithm=preview", behind)
    outcome.inputs |= {**result.inputs, "reference": str(behind)}
    outcome.extra["scorers"] = result.extra.get("scorers") or {}
    rewards_PSM = _rewards(behind, result.axes)
    names = list(result.axes)
    rows = [
        _row(OPTIMUM, names, point.weights, means=point.means, kl=point.kl, ess=point.ess)
        for point in (
            preview_point(rewards_PSM, weights=weights, beta=algorithm.beta, min_ess=algorithm.min_ess)
            for weights in _weightings(len(names), algorithm.points)
        )
    ]
    num_samples = rewards_PSM.shape[1]
    tried = [n for n in (2**power for power in range(1, 12)) if n <= num_samples // MOST_OF_SAMPLES]
    for weights in _weightings(len(names), algorithm.points):
        found = [best_of_n(rewards_PSM, weights=weights, n=n) for n in tried]
        rows += [_row(f"best of {one.n}", names, weights, means=one.means, kl=one.kl) for one in found]
    _say(rows, names, algorithm, num_samples)
    write_json(run.path / PREVIEW_JSON, {"beta": algorithm.beta, "min_ess": algorithm.min_ess, "points": rows})
    _write_csv(run.path / PREVIEW_CSV, rows, names)
    outcome.artifacts |= {"preview": PREVIEW_JSON, "table": PREVIEW_CSV}
    say(f"table:   {run.path / PREVIEW_CSV}")


def _rewards(folder: Path, axes: dict[str, str]) -> Floats:
    """Rewards of the reference's samples, (P, S, M), in the order of the axes.

    Raises:
        ConfigError: if an objective has no scorer, or a sample no score.
    """
    prompts = {row["id"]: json.dumps(row["prompt"], sort_keys=True) for row in read_jsonl(folder / GENERATIONS)}
    by_prompt: dict[str, list[list[float]]] = {}
    for row in read_jsonl(folder / SCORES):
        unknown = [name for name, axis in axes.items() if row.get(axis) is None]
        if unknown:
            raise ConfigError(
                f"scorers.{unknown[0]}: a sample has no score by it; algorithm=preview needs a scorer of every "
                "objective that scores every response (scorers=beaver, or scorers.OBJECTIVE.kind=...)"
            )
        by_prompt.setdefault(prompts[row["id"]], []).append([float(row[axis]) for axis in axes.values()])
    return np.array([by_prompt[name] for name in sorted(by_prompt)])


def _weightings(num_objectives: int, points: int) -> list[tuple[float, ...]]:
    """Weightings from one objective to the other; for more than two, each alone and all alike."""
    if num_objectives == 2:
        return [(w, round(1 - w, 6)) for w in np.linspace(0, 1, points).round(6).tolist()]
    alone = [tuple(float(row == index) for row in range(num_objectives)) for index in range(num_objectives)]
    return [*alone, (1 / num_objectives,) * num_objectives] if num_objectives > 1 else alone


def _row(
    what: str,
    names: list[str],
    weights: tuple[float, ...],
    *,
    means: tuple[Interval, ...] | None,
    kl: Interval | None,
    ess: float | None = None,
) -> dict[str, Any]:
    """One point as a record; null where it is unknown."""
    scores = {name: None if means is None else means[index].as_record() for index, name in enumerate(names)}
    weighed = dict(zip(names, weights, strict=True))
    return {
        "point": what,
        "weights": weighed,
        "scores": scores,
        "kl": None if kl is None else kl.as_record(),
        "effective_samples": ess,
    }


def _say(rows: list[dict[str, Any]], names: list[str], algorithm: PreviewConfig, num_samples: int) -> None:
    """The optimum at each weighting in a line; where it is unknown, why."""
    say(f"estimated optimum at beta={algorithm.beta:g} from {num_samples} samples a prompt, 95% intervals over prompts")
    for row in (row for row in rows if row["point"] == OPTIMUM):
        weights = ", ".join(f"{name} {row['weights'][name]:g}" for name in names)
        if row["kl"] is None:
            few = f"{row['effective_samples']:.1f} effective samples, needs {algorithm.min_ess:g}"
            say(f"  {weights}: unknown ({few}: more generator.samples or a larger algorithm.beta)")
            continue
        shown = [f"{name} {_shown(row['scores'][name])}" for name in names] + [f"KL {_shown(row['kl'])} nats"]
        say(f"  {weights}: {', '.join(shown)}")


def _shown(record: dict[str, Any]) -> str:
    ends = record["ci95"]
    return f"{record['mean']:.3g}" + (f" [{ends[0]:.3g}, {ends[1]:.3g}]" if ends else "")


def _write_csv(path: Path, rows: list[dict[str, Any]], names: list[str]) -> None:
    """One row a point; an empty cell is unknown."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    parts = [f"{name}_{end}" for name in (*names, "kl") for end in ("mean", "low", "high")]
    writer.writerow(["point", *(f"weight_{name}" for name in names), *parts, "effective_samples"])
    for row in rows:
        cells: list[object] = [row["point"], *row["weights"].values()]
        for record in (*row["scores"].values(), row["kl"]):
            ends = (record or {}).get("ci95") or (None, None)
            cells += [None if record is None else record["mean"], *ends]
        writer.writerow([*cells, row["effective_samples"]])
    with replacing(path) as unfinished:
        unfinished.write_text(text.getvalue(), encoding="utf-8", newline="")
