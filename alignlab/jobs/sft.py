"""Supervised fine-tuning on the responses of a preference set."""

import sys
from collections.abc import Sequence
from pathlib import Path

from alignlab.config.identity import objectives_of
from alignlab.config.schema import RunConfig, SftConfig
from alignlab.data.records import RankedRow
from alignlab.engine.cache.scores import ScoreCache
from alignlab.engine.scoring.rows import fit
from alignlab.errors import ConfigError
from alignlab.jobs.preference import data_inputs
from alignlab.jobs.recipe import tracker_settings
from alignlab.models.adapters import detach_adapter, lora_config, save_adapter
from alignlab.models.base import Base
from alignlab.models.prompts import Encoded
from alignlab.prerequisites.reference import data_report, ranked_rows, reference
from alignlab.rewards.implicit import ImplicitReward, reference_logps
from alignlab.runs.folder import Metrics, Outcome, RunFolder
from alignlab.runs.progress import say
from alignlab.runs.tracking import tracking
from alignlab.stats import perplexity, token_loss
from alignlab.training.sft import train_sft


def run(config: RunConfig, run: RunFolder, outcome: Outcome) -> None:
    """Trains a LoRA adapter; `model.adapter` takes it as the start of another run, `algorithm=merge` makes it whole."""
    with run.stage("prerequisites"):
        outcome.extra |= data_report(config)
        base = reference(config)
        rows = ranked_rows(config, base, config.dataset.split)
    texts = _Responses(config, base, rows)
    if not texts.encoded:
        limit = config.trainer.max_length
        raise ConfigError(f"trainer.max_length={limit}: none of {len(rows)} rows has a prompt that is shorter")
    outcome.inputs |= {"model": base.id, "revision": base.revision, **data_inputs(config, rows)}
    outcome.extra["rows"] = {"train": len(texts.encoded), "too_long": texts.too_long, "cut": texts.cut}
    if config.hardware.processes > 1:
        say(f"hardware.processes={config.hardware.processes}: has no effect on algorithm=sft, which trains on one")
    with run.stage("training"), tracking(tracker_settings(config), run.path) as tracker:
        trained = train_sft(
            base.model,
            base.tokenizer,
            texts.encoded,
            trainer=config.trainer,
            hardware=config.hardware.on_one_process(),
            seed=config.seed,
            checkpoints=run.path / "checkpoints",
            peft=lora_config(config.peft),
            callbacks=[tracker],
        )
    save_adapter(trained, run.path / "adapter")
    detach_adapter(trained)
    outcome.artifacts["adapter"] = "adapter"
    with run.stage("held-out responses"):
        held_out = ranked_rows(config, base, config.dataset.eval_split) if config.dataset.split is not None else []
        outcome.metrics |= _metrics(config, base, run.path / "adapter", _Responses(config, base, held_out))


class _Responses:
    """The responses that are learned, as tokens within trainer.max_length.

    Args:
        config: says which responses these are.
        base: encodes them.
        rows: where they come from; a row that the objective does not rank has none.
    """

    def __init__(self, config: RunConfig, base: Base, rows: Sequence[RankedRow]) -> None:
        assert isinstance(config.algorithm, SftConfig)
        both, objective = config.algorithm.responses == "both", objectives_of(config).trained
        limit = config.trainer.max_length
        found = [(row, text) for row in rows for text in ranked_responses(row, objective, all_of_them=both)]
        encoded = base.encoder.encode_all([(row.prompt, text) for row, text in found])
        longest = limit if config.dataset.on_long == "drop" else sys.maxsize
        kept = [
            (row, text)
            for (row, _), text in zip(found, encoded, strict=True)
            if len(text.prompt_ids) < limit and len(text.prompt_ids) + len(text.response_ids) <= longest
        ]
        self.encoded: list[Encoded] = [fit(text, limit) for _, text in kept]
        self.groups = [row.group for row, _ in kept]
        self.too_long = len(found) - len(kept)
        self.cut = sum(len(text.prompt_ids) + len(text.response_ids) > limit for _, text in kept)


def ranked_responses(row: RankedRow, objective: str, *, all_of_them: bool) -> list[str]:
    """The best responses of a row by an objective, or all that it ranks; none where it prefers no response."""
    scores = row.scores.get(objective, ())
    known = {place: score for place, score in enumerate(scores) if score is not None}
    if len(set(known.values())) < 2:
        return []
    best = max(known.values())
    return [row.responses[place] for place, score in known.items() if all_of_them or score == best]


def _metrics(config: RunConfig, base: Base, adapter: Path, texts: _Responses) -> Metrics:
    """Loss a response token and perplexity on held-out prompts, of the trained model and of the one it started from."""
    if not texts.encoded:
        return {}
    cache = ScoreCache(Path(config.paths.cache) / "scores")
    batch_size = config.trainer.per_device_eval_batch_size
    policy = ImplicitReward(base, adapter, beta=1.0, cache=cache, batch_size=batch_size, name="sft")
    lengths = [len(row.response_ids) for row in texts.encoded]
    before = reference_logps(base, texts.encoded, cache=cache, batch_size=batch_size).tolist()
    after = token_loss(policy.logps(texts.encoded).tolist(), lengths, texts.groups)
    return {
        "held_out_loss": after.as_record(),
        "perplexity": perplexity(after).as_record(),
        "loss_before": token_loss(before, lengths, texts.groups).as_record(),
    }
