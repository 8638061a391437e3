"""MODPO: one objective's pairs against a reference that the other objectives' rewards tilt (arXiv 2310.03708)."""

import shutil
from pathlib import Path

from alignlab.config.identity import objectives_of
from alignlab.config.schema import ModpoConfig, RunConfig
from alignlab.engine.cache.scores import ScoreCache
from alignlab.evaluation.measure import measure
from alignlab.io.atomic import new_folder
from alignlab.jobs.preference import data_inputs, finish, train_and_measure
from alignlab.prerequisites.reference import data_report, ranked_rows, reference
from alignlab.prerequisites.reward_report import prepared_rewards
from alignlab.prerequisites.rewards import reward_adapter
from alignlab.runs.folder import Outcome, RunFolder
from alignlab.runs.progress import say


def run(config: RunConfig, run: RunFolder, outcome: Outcome) -> None:
    """Trains and measures. Where the trained objective weighs 0, the policy is the other reward's own adapter."""
    objectives = objectives_of(config)
    if objectives.weights[objectives.trained] > 0:
        train_and_measure(config, run, outcome)
    else:
        _take_margin_policy(config, run, outcome)


def _take_margin_policy(config: RunConfig, run: RunFolder, outcome: Outcome) -> None:
    """w_k = 0: pi_ref * exp(r/beta) is the policy that the implicit reward r was read from; nothing is trained."""
    assert isinstance(config.algorithm, ModpoConfig)
    objectives = objectives_of(config)
    (other,) = objectives.others
    cache = ScoreCache(Path(config.paths.cache) / "scores")
    with run.stage("prerequisites"):
        outcome.extra |= data_report(config)
        base = reference(config)
        source, beta = reward_adapter(config, other, base)
        rows = ranked_rows(config, base, config.dataset.split)
        prepared_rewards(config, outcome, run.path, base=base, ranked=rows, cache=cache)
    say(f"w=0: takes the policy behind the reward of {other}, {source}; no training")
    adapter = run.path / "adapter"
    with new_folder(adapter) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)
    outcome.artifacts["adapter"] = adapter.name
    outcome.inputs |= {"model": base.id, "revision": base.revision, **data_inputs(config, rows)}
    measure(config, run, outcome, base=base, adapter=adapter, beta=beta, objectives=objectives, cache=cache)
    finish(outcome, cache, config.algorithm)
