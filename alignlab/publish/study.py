"""An Optuna study of a front, for optuna-dashboard: a trial a policy. Imports optuna when asked, an extra."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignlab.errors import masked
from alignlab.front.collect import Collection, FailedRun, FrontPoint
from alignlab.io.atomic import replacing
from alignlab.pages import visible
from alignlab.publish.policies import Policy


def write_study(path: Path, *, name: str, collection: Collection, policies: Sequence[Policy]) -> None:
    """Write the study, an SQLite file.

    A trial's params are w per objective, its values the objectives' means; user attributes hold everything else. The
    reference has no params. A failed run is a failed trial with its error.

    Args:
        path: the file, which is replaced.
        name: of the study.
        collection: the front, with at least one point.
        policies: of its points.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with replacing(path) as unfinished:
        storage = optuna.storages.RDBStorage(f"sqlite:///{unfinished}")
        study = optuna.create_study(storage=storage, study_name=name, directions=["maximize"] * len(collection.axes))
        study.set_metric_names(list(collection.axes))
        bounds = _bounds(collection.points)
        study.add_trials([_trial(policy, bounds) for policy in policies])
        study.add_trials([_failed(run) for run in collection.failures])
        storage.engine.dispose()


def _bounds(points: Sequence[FrontPoint]) -> dict[str, tuple[float, float]]:
    """Objective -> range of its weight: 0 to 1, wider where a weight lies outside."""
    found: dict[str, tuple[float, float]] = {}
    for point in points:
        for name, weight in point.weights.items():
            low, high = found.get(name, (0.0, 1.0))
            found[name] = (min(low, weight), max(high, weight))
    return found


def _trial(policy: Policy, bounds: Mapping[str, tuple[float, float]]) -> Any:
    import optuna

    point = policy.point
    named = {f"w_{visible(name)}": (weight, bounds[name]) for name, weight in point.weights.items()}
    return optuna.trial.create_trial(
        values=list(point.position),
        params={name: weight for name, (weight, _) in named.items()},
        distributions={name: optuna.distributions.FloatDistribution(*ends) for name, (_, ends) in named.items()},
        user_attrs=_attributes(policy),
    )


def _attributes(policy: Policy) -> dict[str, Any]:
    """What optuna-dashboard shows beside a trial."""
    point = policy.point
    intervals = {name: list(one.bounds) for name, one in point.metrics.items() if one.bounds is not None}
    kl = point.metrics.get("kl")
    return {
        "policy": policy.name,
        "run": visible(point.folder.name),
        "command": policy.command and visible(policy.command),
        "algorithm": visible(point.algorithm),
        "seed": point.seed,
        "beta": point.beta,
        "kl": None if kl is None else kl.mean,
        "means": {visible(name): one.mean for name, one in point.metrics.items()},
        "ci95": {visible(name): ends for name, ends in intervals.items()},
        "n": {visible(name): one.n for name, one in point.metrics.items()},
    }


def _failed(run: FailedRun) -> Any:
    import optuna

    return optuna.trial.create_trial(
        state=optuna.trial.TrialState.FAIL,
        user_attrs={
            "run": visible(run.folder.name),
            "algorithm": visible(run.algorithm),
            "seed": run.seed,
            "w": run.w,
            "status": visible(run.status),
            "error": masked(visible(run.error)),
        },
    )
