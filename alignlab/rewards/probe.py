"""Probes: a linear head on a base model's hidden states, as Bradley-Terry rewards.

Shape letters: n rows, K layers, H hidden width, F features.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from alignlab.config.fingerprints import fingerprint
from alignlab.config.schema import PretrainedConfig
from alignlab.data.records import Prompt
from alignlab.engine.cache.states import StateCache
from alignlab.engine.scoring.rows import fit
from alignlab.engine.scoring.states import pooled_states
from alignlab.errors import ConfigError
from alignlab.models.base import Base, load_base
from alignlab.models.cards import ProbeCard, check_recorded_files, read_probe_card, save_card
from alignlab.models.prompts import Encoded, PromptEncoder

WEIGHTS = "probe.safetensors"
LENGTHS = 2
"""Version of `log_lengths`, by which scores that read a length are kept: 1 took an end token off cut texts."""


@dataclass(frozen=True)
class ProbeFeatures:
    """What a probe reads of a response."""

    layers: tuple[int, ...]
    """Counted from 1."""
    pooling: str
    with_length: bool
    """Whether log(1 + tokens) is the last feature."""

    def of(self, rows: Sequence[Encoded], base: Base, cache: StateCache, *, batch_size: int, label: str) -> Tensor:
        """Features of every row, float64, shape (n, F): K*H hidden states, then the length where it is one.

        Args:
            rows: prompts and responses as tokens, within the length limit.
            base: the model whose hidden states they are.
            cache: keeps the hidden states.
            batch_size: rows of one forward.
            label: text of the progress bar.
        """
        layers, pooling = list(self.layers), self.pooling

        def compute(missing: list[Encoded]) -> Tensor:
            """Pooled states of rows that the cache does not hold."""
            found = pooled_states(
                base.model,
                missing,
                layers=layers,
                pooling=pooling,
                label=label,
                batch_size=batch_size,
                autocast=base.autocast,
            )
            return found.flatten(1)

        states = cache.states(f"{base.scorer}:{layers}:{pooling}", rows, compute).double()
        return torch.cat([states, log_lengths(rows, base.encoder)[:, None]], dim=1) if self.with_length else states


def log_lengths(rows: Sequence[Encoded], encoder: PromptEncoder) -> Tensor:
    """log(1 + tokens of the response), its end token, which a cut one lacks, apart; float64, shape (n,)."""
    lengths = [len(row.response_ids) - encoder.has_ended(row.response_ids) for row in rows]
    return torch.tensor(lengths, dtype=torch.float64).log1p()


def save_probe(folder: Path, weights_F: Tensor, card: ProbeCard) -> None:
    """Write a probe's weights and its card.

    Args:
        folder: becomes the probe's.
        weights_F: one weight a feature.
        card: says what the features are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"weight": weights_F.double().contiguous()}, folder / WEIGHTS)
    save_card(folder, card)


@dataclass(frozen=True)
class ProbeSource:
    """Where a probe is, and what it reads."""

    folder: Path
    card: ProbeCard
    digest: str
    """Hash of its weights and card."""

    @property
    def id(self) -> str:
        """What its scores depend on beside the texts."""
        lengths = f":lengths={LENGTHS}" if self.card.length_term == "score" else ""
        return f"probe:{self.digest}{lengths}"


def probe_source(key: str, path: str) -> ProbeSource:
    """Find a probe.

    Args:
        key: what its settings stand under, e.g. `algorithm.rewards.safer`.
        path: the folder that a reward_model run saved.

    Raises:
        ConfigError: if the folder holds no probe, or another than its card says.
    """
    folder = Path(path)
    card = read_probe_card(folder) if folder.is_dir() else None
    if card is None or not (folder / WEIGHTS).is_file():
        raise ConfigError(f"{key}.path={path}: holds no probe; name the folder `reward` of a run with kind=probe")
    check_recorded_files(f"{key}.path={path}", folder, card)
    return ProbeSource(folder, card, fingerprint(folder))


class ProbeReader:
    """Turns texts into the tokens that a probe's base reads, by the template that the probe was fitted with.

    Args:
        encoder: the base's tokenizer with that template.
        max_length: longest row in tokens; a longer response is cut at the end.
        key: of the limit, for errors.
    """

    def __init__(self, encoder: PromptEncoder, max_length: int, *, key: str = "trainer.max_length") -> None:
        self.encoder, self.max_length, self._key = encoder, max_length, key
        self.cut = 0
        """Rows that were cut at the limit."""

    def read_all(self, texts: Sequence[tuple[Prompt, str]]) -> list[Encoded]:
        """Tokens of every (prompt, response).

        Raises:
            ConfigError: if the limit leaves nothing of a response.
        """
        rows = self.encoder.encode_all(texts, sampled=True)
        too_long = [len(row.prompt_ids) for row in rows if len(row.prompt_ids) >= self.max_length]
        if too_long:
            what = f"{len(too_long)} of {len(rows)} prompts leave no room for a response, the longest takes"
            raise ConfigError(f"{self._key}={self.max_length}: {what} {max(too_long)} tokens")
        read = [fit(row, self.max_length) for row in rows]
        self.cut += sum(one is not row for one, row in zip(read, rows, strict=True))
        return read


def load_probe(
    key: str, source: ProbeSource, base: Base, cache: StateCache, *, device: str, batch_size: int, label: str
) -> tuple[ProbeReader, Callable[[Sequence[Encoded]], Tensor]]:
    """The reader and the scorer of a probe; its base is the run's own, or loaded beside it.

    Args:
        key: what its settings stand under, for errors.
        source: the probe.
        base: the run's base model.
        cache: keeps hidden states.
        device: where another base computes.
        batch_size: rows of one forward.
        label: text of the progress bar.

    Raises:
        ConfigError: if the base is not where the card says, or another model is there.
    """
    card = source.card
    own = _base_of(f"{key}.path={source.folder}", card, base, device)
    weights_F = load_file(source.folder / WEIGHTS)["weight"]
    features = ProbeFeatures(tuple(card.layers), card.pooling, with_length=card.length_term == "score")

    def scores(rows: Sequence[Encoded]) -> Tensor:
        return features.of(rows, own, cache, batch_size=batch_size, label=label) @ weights_F

    limit = f"{key}.path={source.folder}: its max_length"
    return ProbeReader(own.encoder, card.max_length, key=limit), scores


def _base_of(what: str, card: ProbeCard, base: Base, device: str) -> Base:
    if card.base == base.id:
        same = card.template == base.encoder.template
        return base if same else dataclasses.replace(base, encoder=PromptEncoder(base.tokenizer, card.template))
    if not Path(card.base_path).is_dir() and Path(card.base_path).is_absolute():
        raise ConfigError(f"{what}: its probe reads hidden states of {card.base_path}, which is not there")
    config = PretrainedConfig(
        kind="hf",
        name="probe",
        prompt_template=card.template,
        learning_rate=1.0,  # nothing is trained
        path=card.base_path,
        revision=card.base_revision,
        adapter=None,
        dtype=card.dtype,
        quantization=None,
        attn_implementation=card.attn_implementation,
    )
    loaded = load_base(config, folder=None, device=device, key=f"{what}: its base")
    if loaded.id != card.base:
        raise ConfigError(f"{what}: its probe was fitted to another model than {card.base_path} is now")
    return loaded
