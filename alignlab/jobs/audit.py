"""Scores a preference set without training: what reference, rewards and a policy say of each pair, and what of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from alignlab.config.errors import ConfigError
from alignlab.config.identity import Objectives, objectives_of, rewarded
from alignlab.config.schema import AuditConfig, RunConfig
from alignlab.data.records import RankedRow, pairs_by
from alignlab.data.sources import select_split
from alignlab.front.metrics import Interval, mean_interval
from alignlab.jobs.preference import data_inputs
from alignlab.jobs.prerequisites import ranked_rows, reference, reward
from alignlab.models.base import Base, position_limit
from alignlab.models.cards import read_card
from alignlab.preference.audit import (
    Scored,
    Suspect,
    agreement,
    by_pair,
    gaps_of,
    modpo_gaps,
    modpo_losses,
    spread,
    suspects,
)
from alignlab.preference.cache import ScoreCache
from alignlab.preference.rows import EncodedPair, encode_pairs, encode_what_fits
from alignlab.rewards.base import Reward
from alignlab.rewards.implicit import ImplicitReward, reference_logps
from alignlab.runs.atomic import write_jsonl
from alignlab.runs.folder import Outcome, RunFolder
from alignlab.runs.progress import console, say


def run(config: RunConfig, run: RunFolder, outcome: Outcome) -> None:
    """Writes pairs.jsonl and mislabelled.jsonl, and says of every reward how it agrees with its objective's labels."""
    algorithm = config.algorithm
    assert isinstance(algorithm, AuditConfig)
    cache = ScoreCache(Path(config.paths.cache) / "scores")
    with run.stage("prerequisites"):
        base = reference(config)
        rows = ranked_rows(config, base, config.dataset.split)
        rewards = {name: reward(config, name, base, cache) for name in rewarded(config)}
        policy = _policy(config, base, cache)
    outcome.inputs |= {"model": base.id, "revision": base.revision, **data_inputs(config, rows)}
    audit = Audit(config, objectives_of(config), base, rewards, policy, cache)
    with run.stage("scoring"):
        scored = audit.score(rows)
        doubted = audit.doubted(rows, scored)
        outcome.metrics |= audit.metrics(rows, scored)
    write_jsonl(run.path / "pairs.jsonl", scored.records())
    write_jsonl(run.path / "mislabelled.jsonl", [suspect.as_record() for suspect in doubted])
    outcome.artifacts |= {"pairs": "pairs.jsonl", "mislabelled": "mislabelled.jsonl"}
    outcome.extra["rows"] = scored.counts() | {"mislabelled": len(doubted)}
    outcome.extra["cache"] = {name: count.__dict__ for name, count in cache.counts.items()}
    _report(outcome, audit, scored, doubted)


@dataclass(frozen=True)
class Audit:
    """What scores, and by which settings."""

    config: RunConfig
    objectives: Objectives
    base: Base
    rewards: dict[str, Reward]
    policy: ImplicitReward | None
    cache: ScoreCache

    def score(self, rows: Sequence[RankedRow]) -> Scored:
        """Every pair of the trained objective."""
        algorithm = self.config.algorithm
        assert isinstance(algorithm, AuditConfig)
        pairs = pairs_by(rows, self.objectives.trained)
        encoded = encode_pairs(pairs, self.base.encoder, max_length=self._limit)
        texts, batch_size = encoded.responses(), self.config.trainer.per_device_eval_batch_size
        ref = by_pair(reference_logps(self.base, texts, cache=self.cache, batch_size=batch_size))
        margins = {name: by_pair(reward.score_encoded(texts)) for name, reward in self.rewards.items()}
        policy = None if self.policy is None else by_pair(self.policy.logps(texts))
        gaps = None
        if policy is not None:
            gaps = modpo_gaps(ref, policy, margins, objectives=self.objectives, beta=algorithm.beta)
        return Scored(pairs, encoded, ref, policy, margins, gaps)

    def metrics(self, rows: Sequence[RankedRow], scored: Scored) -> dict[str, dict[str, Any]]:
        """Each reward's agreement with its own labels, held out and over all; margins; the policy's loss."""
        found: dict[str, dict[str, Any]] = {}
        held_out = self._held_out(rows)
        for name in self.rewards:
            found[f"{name}_agreement"] = self._agreement(name, held_out).as_record()
            if self.config.dataset.split != "test":
                found[f"{name}_agreement_all"] = self._agreement(name, rows).as_record()
            spread_of = spread(gaps_of(scored.margins_B2[name]), scored.groups)
            if spread_of is not None:
                found[f"{name}_margin"] = spread_of.as_record()
        if scored.gaps_B is not None:
            found["loss"] = mean_interval(modpo_losses(scored.gaps_B).tolist(), scored.groups).as_record()
            found["accuracy"] = agreement(scored.gaps_B.tolist(), scored.groups).as_record()
        return found

    def doubted(self, rows: Sequence[RankedRow], scored: Scored) -> list[Suspect]:
        """The labels that an objective's own reward contradicts, or that the policy does for the trained objective."""
        algorithm = self.config.algorithm
        assert isinstance(algorithm, AuditConfig)
        found = []
        for name in self.rewards:
            pairs, gaps = self._own_gaps(name, rows)
            ids = [pair.id for pair in pairs]
            found += suspects(ids, gaps, objective=name, by="reward", at_most=algorithm.mislabelled)
        if scored.gaps_B is not None:
            ids = [pair.id for pair in scored.encoded.pairs]
            trained = self.objectives.trained
            at_most = algorithm.mislabelled
            found += suspects(ids, scored.gaps_B.tolist(), objective=trained, by="policy", at_most=at_most)
        return found

    def _held_out(self, rows: Sequence[RankedRow]) -> list[RankedRow]:
        split = self.config.dataset.split
        if split == "train":
            return ranked_rows(self.config, self.base, "test")
        return list(rows) if split == "test" else select_split(rows, self.config.dataset, "test")

    def _agreement(self, objective: str, rows: Sequence[RankedRow]) -> Interval:
        pairs, gaps = self._own_gaps(objective, rows)
        return agreement(gaps, [pair.group for pair in pairs])

    def _own_gaps(self, objective: str, rows: Sequence[RankedRow]) -> tuple[list[EncodedPair], list[float]]:
        """The pairs by an objective's own labels, and its reward of chosen minus rejected."""
        encoded = encode_what_fits(pairs_by(rows, objective), self.base.encoder, max_length=self._limit)
        if not encoded.pairs:
            return [], []
        gaps = gaps_of(by_pair(self.rewards[objective].score_encoded(encoded.responses())))
        return encoded.pairs, gaps

    @property
    def _limit(self) -> int | None:
        assert isinstance(self.config.algorithm, AuditConfig)
        return self.config.algorithm.max_length or position_limit(self.base.model)


def _policy(config: RunConfig, base: Base, cache: ScoreCache) -> ImplicitReward | None:
    """The policy whose losses are asked for.

    Raises:
        ConfigError: if it was trained on another base, or with another template.
    """
    algorithm = config.algorithm
    assert isinstance(algorithm, AuditConfig)
    if algorithm.adapter is None:
        return None
    folder = Path(algorithm.adapter)
    card = read_card(folder)
    if card is not None and card.base != base.id:
        raise ConfigError(f"algorithm.adapter={folder}: was trained on another base model ({card.base}, not {base.id})")
    if card is not None and card.prompt_template != config.model.prompt_template:
        raise ConfigError(
            f"algorithm.adapter={folder}: was trained with model.prompt_template={card.prompt_template!r}, "
            f"this run has {config.model.prompt_template!r}"
        )
    batch_size = config.trainer.per_device_eval_batch_size
    return ImplicitReward(base, folder, beta=algorithm.beta, cache=cache, batch_size=batch_size, name="policy")


def _report(outcome: Outcome, audit: Audit, scored: Scored, doubted: Sequence[Suspect]) -> None:
    """The margins' spread as a table, and a line for whatever deserves a look. Never a text of the data."""
    counts = scored.counts()
    if counts["too_long"] or counts["cut"]:
        left_out = f"{counts['too_long']} not scored (prompt too long)"
        say(f"{counts['pairs']} pairs: {left_out}, {counts['cut']} with a cut response")
    if audit.rewards:
        console.print(_spread_table(outcome, audit))
    for name in audit.rewards:
        _say_sign(name, outcome)
    for name, by in dict.fromkeys((suspect.objective, suspect.by) for suspect in doubted):
        number = sum((suspect.objective, suspect.by) == (name, by) for suspect in doubted)
        say(f"{name}: {number} labels that the {by} contradicts, the most decided first, by id in mislabelled.jsonl")


def _spread_table(outcome: Outcome, audit: Audit) -> Table:
    table = Table(title=f"reward of chosen minus rejected, by the labels of {audit.objectives.trained}")
    table.add_column("objective")
    for title in ("weight", "std", "5 %", "25 %", "median", "75 %", "95 %"):
        table.add_column(title, justify="right")
    for name in audit.rewards:
        metric = outcome.metrics.get(f"{name}_margin")
        if metric is not None:
            values = [audit.objectives.weights[name], metric["std"], *metric["quantiles"].values()]
            table.add_row(name, *(f"{value:.3g}" for value in values))
    return table


def _say_sign(name: str, outcome: Outcome) -> None:
    """Below one half a reward ranks pairs against its own labels; where no pair is held out all of them speak."""
    found, where = outcome.metrics[f"{name}_agreement"], "held-out"
    if found["mean"] is None:
        found, where = outcome.metrics.get(f"{name}_agreement_all", found), "scored"
    mean, interval = found["mean"], found["ci95"]
    if mean is None:
        say(f"{name}: the data hold no labels of it, so its sign cannot be checked")
    elif mean < 0.5:
        doubt = "" if interval and interval[1] < 0.5 else " (not certain: too few pairs)"
        pairs = f"{mean:.3f} of the {where} pairs"
        say(f"{name}: agrees with its own labels on {pairs}, below one half: the sign is probably wrong{doubt}")
