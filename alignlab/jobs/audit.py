"""Scores a preference set without training: what reference, rewards and a policy say of each pair."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from alignlab.config.objectives import Objectives
from alignlab.config.plan import Plan
from alignlab.config.schema import AuditConfig
from alignlab.data.records import RankedRow, pairs_by
from alignlab.data.sources import select_split
from alignlab.engine.cache.scores import ScoreCache, shared_scores
from alignlab.engine.scoring.rows import encode_pairs, encode_what_fits
from alignlab.evaluation.audit import (
    OwnGaps,
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
from alignlab.evaluation.audit_page import Audited, write_audit_page
from alignlab.io.atomic import write_jsonl
from alignlab.models.adapters import adapter_for
from alignlab.models.base import Base, position_limit
from alignlab.pages import index_link
from alignlab.prerequisites.models import reference
from alignlab.prerequisites.reward_report import RewardContext, normalised
from alignlab.prerequisites.rewards import RewardParts, reward
from alignlab.prerequisites.rows import data_inputs, data_report, held_out_rows, ranked_rows, training_rows
from alignlab.rewards.agreement import Sign, fitted_scale, not_shown, sign_of
from alignlab.rewards.base import Reward
from alignlab.rewards.implicit import ImplicitReward, reference_logps
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome
from alignlab.runs.tables import print_table
from alignlab.stats import Interval, mean_interval


def run(plan: Plan[AuditConfig], run: RunFolder, outcome: Outcome) -> None:
    """Write pairs.jsonl and mislabelled.jsonl, and say of every reward how it agrees with its objective's labels.

    Args: every job's, see `alignlab.jobs`.
    """
    algorithm, source, cache = plan.algorithm, plan.rows, shared_scores(plan.cache)
    split, batch_size = source.settings.split, plan.recipe.trainer.per_device_eval_batch_size
    with run.stage("prerequisites"):
        outcome.extra |= data_report(source, plan.model)
        base = reference(plan.model)
        rows = training_rows(source, base)
        parts = RewardParts(base, cache, run.make_run)
        rewards = {name: reward(one, parts) for name, one in plan.rewards.items()}
        trained_on = ranked_rows(source, base, "train") if split == source.settings.eval_split else rows
        context = RewardContext(
            plan.rewards, parts, run.path, plan.recipe.trainer.max_length, source.settings.on_long, False
        )
        rewards = normalised(context, outcome, {}, rewards, trained_on)
        policy = None
        if algorithm.adapter is not None:
            template, key = plan.model.settings.prompt_template, "algorithm.adapter"
            folder = adapter_for(key, algorithm.adapter, base_id=base.id, template=template).folder
            policy = ImplicitReward(
                base, folder, beta=algorithm.beta, cache=cache, batch_size=batch_size, name="policy", key=key
            )
    outcome.inputs |= {"model": base.id, "revision": base.revision, **data_inputs(source, rows)}
    outcome.beta = algorithm.beta
    limit = algorithm.max_length or position_limit(base.model)
    audit = Audit(
        plan.objectives, base, rewards, policy, cache, algorithm.beta, limit, batch_size, source.settings.on_long
    )
    with run.stage("scoring"):
        scored = audit.score(rows)
        own = audit.own_gaps(rows)
        if split == "train":
            held_out = audit.own_gaps(held_out_rows(source, base))
        else:
            held_out_split = source.settings.eval_split
            among = rows if split == held_out_split else select_split(rows, source.settings, held_out_split)
            groups = {row.group for row in among}
            held_out = {name: gaps.of_groups(groups) for name, gaps in own.items()}
    outcome.metrics |= _metrics(scored, own, held_out)
    found = _contradicted(scored, own, plan.objectives.trained)
    contradicted = {key: len(those) for key, those in found.items()}
    doubted = [one for those in found.values() for one in those[: algorithm.mislabelled]]
    write_jsonl(run.path / "pairs.jsonl", scored.records())
    write_jsonl(run.path / "mislabelled.jsonl", [suspect.as_record() for suspect in doubted])
    outcome.artifacts |= {"pairs": "pairs.jsonl", "mislabelled": "mislabelled.jsonl"}
    outcome.extra["rows"] = scored.counts() | {"mislabelled": len(doubted), "contradicted": sum(contradicted.values())}
    outcome.extra["cache"] = {name: count.__dict__ for name, count in cache.counts.items()}
    notes = _report(outcome, plan.objectives, scored, own)
    _say_doubts(contradicted, at_most=algorithm.mislabelled)
    names = source.settings.name, plan.model.settings.name
    audited = Audited(*names, plan.objectives, scored, doubted, outcome.metrics, contradicted, notes)
    links, private = index_link(plan.runs, run.path), source.toy is None
    outcome.artifacts["page"] = write_audit_page(run.path, audited, links=links, private=private).name


@dataclass(frozen=True)
class Audit:
    """What scores, and by which settings."""

    objectives: Objectives
    base: Base
    rewards: dict[str, Reward]
    policy: ImplicitReward | None
    cache: ScoreCache
    beta: float
    """KL strength of the losses, 1/nat."""
    limit: int | None
    """Longest prompt plus response that is scored, tokens."""
    batch_size: int
    on_long: str
    """Whether pairs over the limit are left out (`drop`) or cut."""

    def score(self, rows: Sequence[RankedRow]) -> Scored:
        """Every pair of the trained objective."""
        pairs = pairs_by(rows, self.objectives.trained)
        encoded = encode_pairs(
            pairs, self.base.encoder, max_length=self.limit, on_long=self.on_long, key="algorithm.max_length"
        )
        texts = encoded.responses()
        ref = by_pair(reference_logps(self.base, texts, cache=self.cache, batch_size=self.batch_size))
        margins = {name: by_pair(reward.score_encoded(texts)) for name, reward in self.rewards.items()}
        policy = None if self.policy is None else by_pair(self.policy.logps(texts))
        gaps = None
        if policy is not None:
            gaps = modpo_gaps(ref, policy, margins, objectives=self.objectives, beta=self.beta)
        return Scored(pairs, encoded, ref, policy, margins, gaps)

    def own_gaps(self, rows: Sequence[RankedRow]) -> dict[str, OwnGaps]:
        """Each reward on the pairs by its own objective's labels."""
        return {name: self._own_gaps(name, rows) for name in self.rewards}

    def _own_gaps(self, objective: str, rows: Sequence[RankedRow]) -> OwnGaps:
        encoded = encode_what_fits(
            pairs_by(rows, objective), self.base.encoder, max_length=self.limit, on_long=self.on_long
        )
        scores = by_pair(self.rewards[objective].score_encoded(encoded.responses())) if encoded.pairs else None
        gaps = [] if scores is None else gaps_of(scores)
        return OwnGaps([pair.id for pair in encoded.pairs], [pair.group for pair in encoded.pairs], gaps)


def _metrics(scored: Scored, own: Mapping[str, OwnGaps], held_out: Mapping[str, OwnGaps]) -> dict[str, dict[str, Any]]:
    """Each reward's agreement with its own labels, held out and over all; margins; the policy's loss and accuracy."""
    found: dict[str, dict[str, Any]] = {}
    for name, gaps in own.items():
        found[f"{name}_agreement"] = agreement(held_out[name].gaps, held_out[name].groups).as_record()
        found[f"{name}_agreement_all"] = agreement(gaps.gaps, gaps.groups).as_record()
        found[f"{name}_margin"] = spread(gaps_of(scored.margins_B2[name]), scored.groups).as_record()
    if scored.gaps_B is not None:
        found["loss"] = mean_interval(modpo_losses(scored.gaps_B).tolist(), scored.groups).as_record()
        found["accuracy"] = agreement(scored.gaps_B.tolist(), scored.groups).as_record()
    return found


def _contradicted(scored: Scored, own: Mapping[str, OwnGaps], trained: str) -> dict[tuple[str, str], list[Suspect]]:
    """Objective and `reward` or `policy` -> the labels that its own reward, or the policy, contradicts."""
    found = {(name, "reward"): suspects(one.ids, one.gaps, objective=name, by="reward") for name, one in own.items()}
    if scored.gaps_B is not None:
        ids = [pair.id for pair in scored.encoded.pairs]
        found[trained, "policy"] = suspects(ids, scored.gaps_B.tolist(), objective=trained, by="policy")
    return found


def _report(outcome: Outcome, objectives: Objectives, scored: Scored, own: Mapping[str, OwnGaps]) -> list[str]:
    """The margins' spread as a table, and a line for whatever deserves a look. Never a text of the data.

    Returns the lines about signs.
    """
    counts = scored.counts()
    if counts["too_long"] or counts["cut"]:
        left_out = f"{counts['too_long']} not scored (too long)"
        say(f"{counts['pairs']} pairs: {left_out}, {counts['cut']} with a cut response")
    if own:
        print_table(_spread_table(outcome, objectives, own))
    notes = [note for name in own for note in _sign_note(name, outcome)]
    for note in notes:
        say(note)
    return notes


def _say_doubts(contradicted: Mapping[tuple[str, str], int], *, at_most: int) -> None:
    """How many labels an objective's reward or the policy contradicts, and which of them are listed."""
    for (name, by), number in contradicted.items():
        listed = "the most decided first" if number <= at_most else f"the {at_most} most decided"
        if number:
            say(f"{name}: {number} labels that the {by} contradicts, {listed}, by id in mislabelled.jsonl")


def _spread_table(outcome: Outcome, objectives: Objectives, own: Mapping[str, OwnGaps]) -> Table:
    caption = "scale: what a reward must be multiplied by to be the log-odds of its own labels"
    table = Table(title=f"reward of chosen minus rejected, by the labels of {objectives.trained}", caption=caption)
    table.add_column("objective")
    for title in ("weight", "std", "5 %", "25 %", "median", "75 %", "95 %", "scale"):
        table.add_column(title, justify="right")
    for name, gaps in own.items():
        metric, scale = outcome.metrics[f"{name}_margin"], fitted_scale(np.array(gaps.gaps))
        metric["scale"] = scale
        values = [objectives.weights[name], metric["std"], *metric["quantiles"].values()]
        table.add_row(name, *(f"{value:.3g}" for value in values), "-" if scale is None else f"{scale:.3g}")
    return table


def _sign_note(name: str, outcome: Outcome) -> list[str]:
    """A line where a reward's sign deserves a look, else none.

    Below one half a reward ranks pairs against its own labels; where no pair is held out all of them speak.
    """
    found, where = Interval.from_record(outcome.metrics[f"{name}_agreement"]), "held-out"
    if found.mean is None:
        found, where = Interval.from_record(outcome.metrics[f"{name}_agreement_all"]), "scored"
    sign = sign_of(found)
    if found.mean is None:
        return [f"{name}: the data hold no labels of it, so its sign cannot be checked"]
    if sign is not Sign.RIGHT:
        pairs = f"{found.mean:.3f} of the {where} pairs"
        told = "the sign is probably wrong" if sign is Sign.REVERSED else not_shown(found)
        return [f"{name}: agrees with its own labels on {pairs}: {told}"]
    return []
