"""Sequence classifiers with one label: whole models, or LoRA adapters with their score head."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from alignlab.config.fingerprints import fingerprint
from alignlab.config.schema import ClassifierConfig
from alignlab.errors import ConfigError
from alignlab.models.base import Base
from alignlab.models.cards import ClassifierCard, check_recorded_files, read_classifier_card
from alignlab.models.loading import LOAD_ERRORS, load_tokenizer, load_weights
from alignlab.models.with_adapter import load_adapter
from alignlab.rewards.reading import TextReader, Tokens
from alignlab.rewards.scorer import Scorer, absent_token, in_batches

HEADS = ("score", "classifier")
"""What transformers calls the last layer of a classifier."""
ADAPTER = "adapter_config.json"


class Float32Linear(nn.Linear):
    """A linear layer that computes in float32, also within autocast."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Its output, float32."""
        with torch.autocast(hidden.device.type, enabled=False):
            return nn.functional.linear(hidden.float(), self.weight, self.bias)


@dataclass(frozen=True)
class ClassifierSource:
    """Where a classifier's weights are, and how it reads."""

    path: str
    revision: str | None
    base: str | None
    """What its adapter is loaded onto; None for a whole model."""
    base_revision: str | None
    weights: str
    """Hash or commit of everything that is loaded."""
    trained_here: bool
    template: str | None
    eos: bool
    max_length: int
    dtype: str

    @property
    def id(self) -> str:
        """What its scores depend on beside the texts."""
        reading = json.dumps([self.template, self.eos, self.max_length])
        return f"classifier:{self.weights}:{self.dtype}:{reading}"


def classifier_source(key: str, config: ClassifierConfig, path: str, base: Base) -> ClassifierSource:
    """Finds a classifier and what it must be loaded onto.

    Args:
        key: what its settings stand under, e.g. `algorithm.rewards.safer`.
        config: the settings.
        path: folder of a model or an adapter, or a model's hub id.
        base: the run's base model; an adapter that was trained on it is loaded onto it, wherever it lies now.

    Raises:
        ConfigError: if an adapter holds no score head, or the model that it was trained on is not there.
    """
    folder = Path(path)
    card = read_classifier_card(folder) if folder.is_dir() else None
    if card is not None and config.template not in (None, card.template):
        raise ConfigError(f"{key}.template={config.template!r}: the classifier was trained with {card.template!r}")
    return _source(key, path, base, card, reads=card or config, revision=config.revision, dtype=config.dtype)


def trained_source(key: str, folder: Path, base: Base, *, dtype: str) -> ClassifierSource:
    """A classifier that was trained here, which its card says all of.

    Args:
        key: what its settings stand under.
        folder: its own.
        base: the run's base model.
        dtype: of the weights.

    Raises:
        ConfigError: as `classifier_source`'s, or if there is no card.
    """
    card = read_classifier_card(folder)
    if card is None:
        raise ConfigError(
            f"{key}.path={folder}: holds no alignlab.json; of a model from elsewhere give kind=classifier"
        )
    return _source(key, str(folder), base, card, reads=card, revision=None, dtype=dtype)


def _source(
    key: str,
    path: str,
    base: Base,
    card: ClassifierCard | None,
    *,
    reads: ClassifierCard | ClassifierConfig,
    revision: str | None,
    dtype: str,
) -> ClassifierSource:
    folder = Path(path)
    onto: tuple[str | None, str | None] = (None, None)
    if folder.is_dir():
        weights = fingerprint(folder)
        if (folder / ADAPTER).is_file():
            _check_head(key, folder)
            onto, identity = _base_of(key, folder, card, base)
            weights += f"+{identity}"
    else:
        weights = _commit(f"{key}.path", path, revision)
    if card is not None:
        check_recorded_files(f"{key}.path={path}", folder, card)
    return ClassifierSource(
        path,
        revision,
        *onto,
        weights=weights,
        trained_here=card is not None,
        template=reads.template,
        eos=reads.eos,
        max_length=reads.max_length,
        dtype=dtype,
    )


def load_classifier(
    source: ClassifierSource, *, device: str, batch_size: int, label: str, key: str = "reward"
) -> tuple[TextReader, Scorer]:
    """The reader and the scorer of a classifier.

    Args:
        source: folder, hub id and settings.
        device: of the model.
        batch_size: rows of a forward.
        label: for the progress.
        key: what its settings stand under, for errors.

    Raises:
        ConfigError: if the model has another number of labels than one, or a checkpoint lacks weights.
    """
    own = source.base is None or (Path(source.path) / "tokenizer_config.json").is_file()
    where, revision = (source.path, source.revision) if own else (str(source.base), source.base_revision)
    tokenizer = load_tokenizer(f"{key}.path", where, revision)
    reader = TextReader(tokenizer, template=source.template, eos=source.eos, max_length=source.max_length, key=key)
    dtype = getattr(torch, source.dtype)
    if source.base is None:
        model = _whole(f"{key}.path", source.path, source.revision, dtype)
    else:
        onto = f"{key}.path={source.path}: its base"
        model = new_classifier(source.base, revision=source.base_revision, dtype=dtype, seed=0, key=onto)
        model = load_adapter(model, Path(source.path), key=f"{key}.path")
    if source.trained_here:
        model.config.get_text_config().pad_token_id = (
            None  # it was trained on the last token, also where that is padding
        )
    return reader, as_scorer(model.to(device).eval(), batch_size=batch_size, label=label)


def as_scorer(model: Any, *, batch_size: int, label: str) -> Scorer:
    """Asks a classifier; the score of a row in a batch is the one that it has alone.

    Of decoders transformers scores the last token that is not config.pad_token_id, and refuses batches without one.
    Where a model names none, each batch is padded with a token that ends none of its rows.

    Args:
        model: a sequence classifier.
        batch_size: rows of a forward.
        label: for the progress.
    """
    config = model.config.get_text_config()
    device = next(model.parameters()).device
    own = config.pad_token_id
    config.use_cache = False

    def forward(inputs: dict[str, Tensor], last_B: Tensor) -> Tensor:
        logits: Tensor = model(**inputs).logits[:, 0]
        return logits

    def pad(taken: set[int]) -> int:
        config.pad_token_id = absent_token(taken) if own is None else own
        return int(config.pad_token_id)

    def scores(rows: Sequence[Tokens]) -> Tensor:
        try:
            return in_batches(rows, forward, pad=pad, batch_size=batch_size, device=device, label=label)
        finally:
            config.pad_token_id = own

    return scores


def new_classifier(
    path: str, *, revision: str | None, dtype: torch.dtype, seed: int, key: str = "model.path", **options: Any
) -> Any:
    """A causal model's weights under a new score head; the head is random by the seed, and in float32.

    Args:
        path: of the causal model.
        revision: of the hub.
        dtype: of the weights below the head.
        seed: of the head.
        key: what the model stands under, for errors.
        **options: for transformers' from_pretrained.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        load = AutoModelForSequenceClassification.from_pretrained
        model = load_weights(key, load, path, new_heads=HEADS, revision=revision, num_labels=1, dtype=dtype, **options)
    head_in_float32(model)
    return model


def head_in_float32(model: Any) -> None:
    """Computes a linear score head in float32, whatever the body's type: 16 bits are too few for a score."""
    for name in HEADS:
        head = getattr(model, name, None)
        if type(head) is nn.Linear:
            head.float().__class__ = Float32Linear


def _whole(key: str, path: str, revision: str | None, dtype: torch.dtype) -> Any:
    load = AutoModelForSequenceClassification.from_pretrained
    config = _config(key, path, revision)
    if config.num_labels != 1:
        raise ConfigError(f"{key}={path}: has {config.num_labels} labels, a reward needs one")
    model = load_weights(key, load, path, revision=revision, dtype=dtype)
    head_in_float32(model)
    return model


def _check_head(key: str, folder: Path) -> None:
    """An adapter of a classifier without its head would be scored by a random one."""
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        raise ConfigError(f"{key}.path={folder}: the folder holds no {file.name}")
    with safe_open(file, "pt") as tensors:
        parts = {part for name in tensors.keys() for part in name.split(".")}  # noqa: SIM118  # no mapping
    if not parts & set(HEADS):
        raise ConfigError(f"{key}.path={folder}: the adapter holds no score head (train it with modules_to_save)")


def _base_of(key: str, folder: Path, card: ClassifierCard | None, base: Base) -> tuple[tuple[str, str | None], str]:
    """(path, revision) of what an adapter was trained on, and its identity."""
    if card is not None and card.base == base.id:
        return (base.path, base.revision), base.id
    named = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))
    path, revision = named.get("base_model_name_or_path"), named.get("revision")
    if not path or (not Path(path).is_dir() and (card is not None or Path(path).is_absolute())):
        raise ConfigError(f"{key}.path={folder}: was trained on {path or 'an unnamed model'}, which is not there")
    identity = (
        fingerprint(Path(path)) if Path(path).is_dir() else _commit(f"{key}.path={folder}: its base", path, revision)
    )
    if card is not None and card.base != identity:
        raise ConfigError(f"{key}.path={folder}: was trained on another model than {path} is now")
    return (path, revision), identity


def _commit(key: str, path: str, revision: str | None) -> str:
    """The commit of a hub model."""
    return str(getattr(_config(key, path, revision), "_commit_hash", None) or path)


def _config(key: str, path: str, revision: str | None) -> Any:
    """The config of a folder or a hub model.

    Args:
        key: what it stands under.
        path: a folder or a hub id.
        revision: of the hub.

    Raises:
        ConfigError: if there is none that can be read.
    """
    try:
        return AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
    except LOAD_ERRORS as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{key}={path}: its config.json cannot be read: {reason:.300}") from None
