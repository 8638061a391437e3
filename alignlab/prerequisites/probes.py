"""A probe from preference pairs: one forward over their responses, then a fit."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from alignlab.config.schema import RewardModelConfig, TrainerConfig
from alignlab.data.records import Pair, RankedRow, pairs_by
from alignlab.engine.cache.states import StateCache
from alignlab.engine.scoring.rows import EncodedPairs, encode_pairs, encode_what_fits
from alignlab.engine.scoring.states import decoder_layers
from alignlab.errors import ConfigError
from alignlab.evaluation.measure import preference_metrics
from alignlab.evaluation.probe import probe_quality, say_quality
from alignlab.models.base import Base
from alignlab.models.cards import ProbeCard
from alignlab.prerequisites.rows import ModelAndRows
from alignlab.rewards.probe import ProbeFeatures, log_lengths, save_probe
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome
from alignlab.training.probe import choose_ridge, fit_probe, out_of_fold, require_groups

Floats = NDArray[np.float64]
REWARD = "reward"
"""Folder of a classifier or a probe in its run's."""
WEAK_RIDGE = 1e-3
"""Of the fit to the length alone: one feature needs no penalty, but a perfect one would have no optimum."""


@dataclass(frozen=True)
class _Measured:
    """Pairs as differences of features, preferred minus other."""

    differences: Floats
    """(P, F), without the length."""
    lengths: Floats
    """(P, 1), log-lengths."""
    groups: list[str]

    def features(self, length_term: str) -> Floats:
        """What is fitted."""
        return self.differences if length_term == "none" else np.hstack([self.differences, self.lengths])


def fit_and_measure(
    algorithm: RewardModelConfig,
    objective: str,
    loaded: ModelAndRows,
    reader: "ProbeReader",
    run: RunFolder,
    outcome: Outcome,
) -> None:
    """Fit a probe to one objective's pairs, measure it on pairs of other prompts, and save it.

    Args:
        algorithm: what is fitted.
        objective: that it learns.
        loaded: base model and rows.
        reader: turns pairs into features.
        run: its folder.
        outcome: takes the metrics.
    """
    encoded = reader.encode(pairs_by(loaded.ranked, objective))
    require_groups([pair.group for pair in encoded.pairs])
    outcome.extra["rows"] = {"train": len(encoded.pairs), "too_long": encoded.too_long, "cut": encoded.cut}
    if encoded.too_long or encoded.cut:
        left_out = f"{encoded.too_long} pairs left out (their prompt alone fills it), {encoded.cut} responses cut"
        say(f"trainer.max_length={reader.max_length}: {left_out}")
    with run.stage("hidden states"):
        known = reader.measured(encoded)
        others = {name: reader.held_out(loaded.held_out, name) for name in loaded.source.settings.objectives}
    with run.stage("fit"):
        fitted = known.features(algorithm.length_term)
        ridge = algorithm.ridge or choose_ridge(fitted, known.groups)
        weights, length_weight = fit_probe(fitted, ridge), fit_probe(known.lengths, WEAK_RIDGE)
        crossed = out_of_fold(fitted, known.groups, algorithm.ridge)
        crossed_length = out_of_fold(known.lengths, known.groups, WEAK_RIDGE)
    # With length_term=control the length is fitted beside the states and then left out of the score.
    kept = weights[: known.differences.shape[1]] if algorithm.length_term == "control" else weights
    quality = {"out-of-fold": probe_quality(crossed, crossed_length, known.groups)}
    for name, part in others.items():
        if part is not None:
            scored = part.features("score" if algorithm.length_term == "score" else "none")
            outcome.metrics |= preference_metrics(name, scored @ kept, part.groups)
            if name == objective:
                length_margins = part.lengths @ length_weight
                quality["held out"] = probe_quality(scored @ kept, length_margins, part.groups)
    outcome.extra["probe"] = {"ridge": ridge, "features": len(kept), **quality}
    for part_name, record in quality.items():
        prefix = f"{objective}_cv" if part_name == "out-of-fold" else objective
        outcome.metrics |= {f"{prefix}_{key}": record[key] for key in ("accuracy", "length_accuracy", "log_loss")}  # type: ignore[misc]
    say_quality(objective, quality, ridge)
    save_probe(run.path / REWARD, torch.from_numpy(kept), _card(algorithm, objective, loaded, reader, ridge, outcome))
    outcome.artifacts[REWARD] = REWARD


class ProbeReader:
    """Features of pairs by a run's settings; hidden states are kept for all runs.

    Args:
        base: the model that reads.
        algorithm: which layers it reads, and how.
        trainer: lengths and batch sizes.
        cache: of hidden states.
    """

    def __init__(self, base: Base, algorithm: RewardModelConfig, trainer: TrainerConfig, cache: StateCache) -> None:
        self.base, self.max_length = base, trainer.max_length
        depth = len(decoder_layers(base.model))
        layers = tuple(max(1, round(fraction * depth)) for fraction in algorithm.layers)
        if len(set(layers)) < len(layers):
            raise ConfigError(f"algorithm.layers={algorithm.layers}: two are one layer of {depth}: {list(layers)}")
        self.features = ProbeFeatures(layers, algorithm.pooling, with_length=False)
        self._cache = cache
        self._batch_size = trainer.per_device_eval_batch_size

    def encode(self, pairs: Sequence[Pair]) -> EncodedPairs:
        """The pairs as tokens; responses are cut at the limit.

        Raises:
            ConfigError: if none fits.
        """
        return encode_pairs(pairs, self.base.encoder, max_length=self.max_length, on_long="cut")

    def measured(self, encoded: EncodedPairs) -> _Measured:
        """Differences of features of all pairs."""
        rows = encoded.responses()
        found = self.features.of(rows, self.base, self._cache, batch_size=self._batch_size, label="hidden states")
        (chosen, rejected), (long, short) = found.chunk(2), log_lengths(rows, self.base.encoder).chunk(2)
        groups = [pair.group for pair in encoded.pairs]
        return _Measured((chosen - rejected).numpy(), (long - short)[:, None].numpy(), groups)

    def held_out(self, rows: Sequence[RankedRow], objective: str) -> _Measured | None:
        """The same of held-out rows by one objective's labels; None where no pair fits."""
        pairs: list[Pair] = pairs_by(rows, objective)
        encoded = encode_what_fits(pairs, self.base.encoder, max_length=self.max_length, on_long="cut")
        return self.measured(encoded) if encoded.pairs else None


def _card(
    algorithm: RewardModelConfig,
    objective: str,
    loaded: ModelAndRows,
    reader: ProbeReader,
    ridge: float,
    outcome: Outcome,
) -> ProbeCard:
    base = loaded.base
    return ProbeCard(
        kind="probe",
        objective=objective,
        base=base.id,
        base_path=base.path,
        base_revision=base.revision,
        dtype=str(base.model.dtype).removeprefix("torch."),
        attn_implementation=base.model.config._attn_implementation,
        template=base.encoder.template,
        max_length=reader.max_length,
        layers=list(reader.features.layers),
        pooling=reader.features.pooling,
        length_term=algorithm.length_term,
        ridge=ridge,
        dataset=loaded.source.settings.name,
        data=outcome.inputs["pairs"],
    )
