"""Sample, score and compare with the reference, without training."""

from pathlib import Path

from alignlab.config.identity import Objectives, objectives_of
from alignlab.config.schema import EvaluateConfig, RunConfig
from alignlab.engine.cache.scores import ScoreCache
from alignlab.evaluation.measure import measure
from alignlab.evaluation.scored import score_samples
from alignlab.models.adapters import adapter_for
from alignlab.prerequisites.reference import data_report, reference
from alignlab.runs.folder import Outcome, RunFolder


def run(config: RunConfig, run: RunFolder, outcome: Outcome) -> None:
    """Measures the reference, or an adapter on it at the weights and beta that it was trained for."""
    algorithm = config.algorithm
    assert isinstance(algorithm, EvaluateConfig)
    with run.stage("prerequisites"):
        if algorithm.adapter or algorithm.rewards:  # the base model alone is not measured on preferences
            outcome.extra |= data_report(config)
        base = reference(config)
    adapter = card = None
    if algorithm.adapter:
        template = config.model.prompt_template
        found = adapter_for("algorithm.adapter", algorithm.adapter, base_id=base.id, template=template)
        adapter, card = found.folder, found.policy_card
    objectives = objectives_of(config)
    if card is not None and set(card.weights) == set(objectives.weights):
        objectives = Objectives(card.objective, card.weights)
    outcome.inputs |= {"model": base.id, "revision": base.revision}
    cache = ScoreCache(Path(config.paths.cache) / "scores")
    measure(
        config,
        run,
        outcome,
        base=base,
        adapter=adapter,
        beta=card.beta if card else algorithm.beta,
        objectives=objectives,
        cache=cache,
    )
    if algorithm.rewards:
        score_samples(config, run, outcome, base=base, adapter=adapter, cache=cache)
