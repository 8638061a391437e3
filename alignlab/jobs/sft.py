"""Supervised fine-tuning on the responses of a preference set."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from alignlab.config.plan import Plan
from alignlab.config.schema import SftConfig
from alignlab.data.records import RankedRow
from alignlab.engine.cache.scores import shared_scores
from alignlab.engine.scoring.rows import encode_located, fit
from alignlab.errors import ConfigError
from alignlab.evaluation.measure import Policy
from alignlab.models.prompts import Encoded, PromptEncoder
from alignlab.prerequisites.rows import model_and_kept_rows
from alignlab.rewards.implicit import reference_logps
from alignlab.runs.folder import RunFolder
from alignlab.runs.result import Metrics, Outcome
from alignlab.stats import perplexity, token_loss
from alignlab.training.sft import sft_on_processes


def run(plan: Plan[SftConfig], run: RunFolder, outcome: Outcome) -> None:
    """Train a LoRA adapter; `model.adapter` takes it as the start of another run, `algorithm=merge` makes it whole.

    Args: every job's, see `alignlab.jobs`.
    """
    trainer, cache = plan.recipe.trainer, shared_scores(plan.cache)
    choice = _Choice(
        plan.objectives.trained,
        plan.algorithm.responses == "both",
        trainer.max_length,
        plan.rows.settings.on_long == "drop",
    )
    with run.stage("prerequisites"):
        loaded = model_and_kept_rows(plan.model, plan.rows, outcome)
    base, rows = loaded.base, loaded.ranked
    texts = encode_responses(rows, base.encoder, choice)
    if not texts.encoded:
        fits = (
            "a response that fits; dataset.on_long=cut cuts them" if choice.drops_long else "a prompt that is shorter"
        )
        ranked = f"none of {len(rows)} rows that {choice.objective} ranks has {fits}"
        raise ConfigError(f"trainer.max_length={trainer.max_length}: {ranked}")
    outcome.extra["rows"] = {"train": len(texts.encoded), "too_long": texts.too_long, "cut": texts.cut}
    with run.stage("training"):
        adapter = sft_on_processes(plan.recipe, base, texts.encoded, run.path)
    outcome.artifacts["adapter"] = adapter.name
    with run.stage("held-out responses"):
        policy = Policy(base, adapter, 1.0, plan.objectives, cache, trainer.per_device_eval_batch_size)
        outcome.metrics |= _metrics(policy, encode_responses(loaded.held_out, base.encoder, choice))


@dataclass(frozen=True)
class _Choice:
    """Which responses are learned: the best by an objective, or all that it ranks, within a number of tokens."""

    objective: str
    all_of_them: bool
    limit: int
    drops_long: bool
    """Whether responses over the limit are left out, or cut."""


@dataclass(frozen=True)
class EncodedResponses:
    """Responses as tokens within the limit, and the prompt group of each."""

    encoded: list[Encoded]
    groups: list[str]
    too_long: int
    """Responses left out: over the limit or, where they are cut, whose prompt alone fills it."""
    cut: int


def encode_responses(rows: Sequence[RankedRow], encoder: PromptEncoder, choice: _Choice) -> EncodedResponses:
    """The responses that are learned from rows; a row that the objective does not rank has none.

    Args:
        rows: of the data.
        encoder: of the model.
        choice: which responses are learned from.
    """
    limit = choice.limit
    found = [
        (row, text) for row in rows for text in ranked_responses(row, choice.objective, all_of_them=choice.all_of_them)
    ]
    texts = {(row.prompt, text): row.location for row, text in found}
    tokens = dict(zip(texts, encode_located(encoder, texts), strict=True))
    encoded = [tokens[row.prompt, text] for row, text in found]
    longest = limit if choice.drops_long else sys.maxsize
    kept = [
        (row, text)
        for (row, _), text in zip(found, encoded, strict=True)
        if len(text.prompt_ids) < limit and len(text.prompt_ids) + len(text.response_ids) <= longest
    ]
    return EncodedResponses(
        encoded=[fit(text, limit) for _, text in kept],
        groups=[row.group for row, _ in kept],
        too_long=len(found) - len(kept),
        cut=sum(len(text.prompt_ids) + len(text.response_ids) > limit for _, text in kept),
    )


def ranked_responses(row: RankedRow, objective: str, *, all_of_them: bool) -> list[str]:
    """The best responses of a row by an objective, or all that it ranks; none where it prefers no response.

    Args:
        row: of the data.
        objective: whose ranking counts.
        all_of_them: all that it ranks, in place of the best.
    """
    scores = row.scores.get(objective, ())
    known = {index: score for index, score in enumerate(scores) if score is not None}
    if len(set(known.values())) < 2:
        return []
    best = max(known.values())
    return [row.responses[index] for index, score in known.items() if all_of_them or score == best]


def _metrics(policy: Policy, texts: EncodedResponses) -> Metrics:
    """Loss a response token and perplexity on held-out prompts, of the trained model and of the one it started from."""
    if not texts.encoded:
        return {}
    lengths = [len(row.response_ids) for row in texts.encoded]
    before = reference_logps(policy.base, texts.encoded, cache=policy.cache, batch_size=policy.batch_size).tolist()
    after = token_loss(policy.reward.logps(texts.encoded).tolist(), lengths, texts.groups)
    return {
        "held_out_loss": after.as_record(),
        "perplexity": perplexity(after).as_record(),
        "loss_before": token_loss(before, lengths, texts.groups).as_record(),
    }
