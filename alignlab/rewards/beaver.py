"""PKU's beaver reward and cost models, read from their checkpoints without any code of theirs.

A checkpoint of safe-rlhf (arXiv 2310.12773) holds a Llama under `model.*`, a linear `score_head`, and the mean and
variance of a `normalizer`. The score is the head's value at the last token. Where the config says `do_normalize`, a
reward is shifted and scaled by them, and a cost is scaled only, so that its sign keeps its meaning: above 0 is harmful.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import LlamaConfig, LlamaModel
from transformers.utils import cached_file

from alignlab.config.fingerprints import fingerprint
from alignlab.config.schema import BeaverConfig
from alignlab.errors import ConfigError
from alignlab.models.loading import LOAD_ERRORS, load_tokenizer, load_weights
from alignlab.rewards.reading import TextReader, Tokens
from alignlab.rewards.scorer import Scorer, in_batches

EPSILON = 1e-8
"""Added to the normaliser's deviation, as in safe-rlhf."""
BY_SCORE_TYPE = {"reward": "affine", "cost": "scale"}
"""What the normaliser does."""
FUNCTIONS = ("affine", "scale", "translate", "identity")
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


@dataclass(frozen=True)
class ScoreHead:
    """What stands on top of the Llama; float32."""

    weight_H: Tensor
    bias: Tensor
    mean: Tensor
    std: Tensor
    function: str
    """One of FUNCTIONS."""

    def __call__(self, hidden_BH: Tensor) -> Tensor:
        """Scores from the last tokens' hidden states, shape (B,)."""
        scores_B = hidden_BH.float() @ self.weight_H + self.bias
        if self.function in ("affine", "translate"):
            scores_B = scores_B - self.mean
        return scores_B / (self.std + EPSILON) if self.function in ("affine", "scale") else scores_B


@dataclass(frozen=True)
class BeaverSource:
    """Where a checkpoint is, and what its config says."""

    path: str
    revision: str | None
    weights: str
    """Hash of its folder, or its commit."""
    settings: dict[str, Any]
    """Its config.json."""
    key: str = "reward.path"
    """What the path stands under, for errors."""

    @property
    def sign(self) -> float:
        """A cost is bad."""
        return -1.0 if self.settings["score_type"] == "cost" else 1.0

    @property
    def function(self) -> str:
        """What the normaliser does: as the config says, else by the score type; nothing unless it is switched on."""
        if not self.settings.get("do_normalize", False):
            return "identity"
        named = self.settings.get("normalize_function") or self.settings.get("normalizer_type")
        return str(named) if named in FUNCTIONS else BY_SCORE_TYPE[self.settings["score_type"]]


def beaver_source(config: BeaverConfig, *, key: str = "reward") -> BeaverSource:
    """Finds a checkpoint, in a folder or on the hub, and reads its config.json.

    Args:
        config: of the reward.
        key: what its settings stand under, for errors.

    Raises:
        ConfigError: if there is none.
    """
    path = str(config.path)
    file = _file(f"{key}.path", path, config.revision, "config.json")
    weights = fingerprint(Path(path)) if Path(path).is_dir() else file.parent.name  # the hub's folders are commits
    return BeaverSource(path, config.revision, weights, json.loads(file.read_text(encoding="utf-8")), f"{key}.path")


def beaver_id(source: BeaverSource, config: BeaverConfig) -> str:
    """What the scores depend on beside the texts."""
    reading = json.dumps([config.template, config.eos, config.max_length])
    return f"beaver:{source.weights}:{config.dtype}:{reading}"


def load_beaver(
    source: BeaverSource, config: BeaverConfig, *, device: str, batch_size: int, label: str
) -> tuple[TextReader, Scorer]:
    """The reader and the scorer of a checkpoint; the scorer gives a cost as it is, not negated.

    Args:
        source: folder or hub id.
        config: of the reward.
        device: of the model.
        batch_size: rows of a forward.
        label: for the progress.

    Raises:
        ConfigError: if the checkpoint lacks weights.
    """
    tokenizer = load_tokenizer(source.key, source.path, source.revision)
    key = source.key.removesuffix(".path")
    reader = TextReader(tokenizer, template=config.template, eos=config.eos, max_length=config.max_length, key=key)
    model = load_weights(
        source.key,
        LlamaModel.from_pretrained,
        source.path,
        config=_llama_config(source),
        revision=source.revision,
        dtype=getattr(torch, config.dtype),
        use_safetensors=True,
        read_apart=("score_head.", "normalizer."),
    )
    model = model.to(device).eval()
    head = score_head(source, device=device)

    def forward(inputs: dict[str, Tensor], last_B: Tensor) -> Tensor:
        hidden_BTH = model(**inputs, use_cache=False).last_hidden_state
        return head(hidden_BTH[torch.arange(len(last_B), device=last_B.device), last_B])

    def scores(rows: Sequence[Tokens]) -> Tensor:
        target = torch.device(device)
        return in_batches(rows, forward, pad=lambda _: 0, batch_size=batch_size, device=target, label=label)

    return reader, scores


def _llama_config(source: BeaverSource) -> LlamaConfig:
    try:
        return LlamaConfig.from_dict(source.settings)
    except LOAD_ERRORS as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{source.key}={source.path}: its config.json makes no model: {reason:.300}") from None


def score_head(source: BeaverSource, *, device: str) -> ScoreHead:
    """Head and normaliser; a mean or variance that is no tensor of the checkpoint stands in its config.

    Raises:
        ConfigError: if the checkpoint holds no score head, or one of another shape.
    """
    names = ("score_head.weight", "score_head.bias", "normalizer.mean", "normalizer.var")
    found = {name: tensor.float().to(device) for name, tensor in _tensors(source, names).items()}
    weight = found.get("score_head.weight")
    if weight is None or weight.shape != (1, source.settings["hidden_size"]):
        shape = "there is none" if weight is None else f"it is {tuple(weight.shape)}"
        raise ConfigError(f"{source.key}={source.path}: needs a score_head.weight of (1, hidden size); {shape}")

    def one(name: str, default: float) -> Tensor:
        tensor, given = found.get(name), source.settings.get(name.rpartition(".")[2])
        if tensor is None:
            tensor = torch.tensor(default if given is None else given, dtype=torch.float32, device=device)
        return tensor.reshape(-1)[0]

    bias = found.get("score_head.bias", torch.zeros(1, device=device))[0]
    return ScoreHead(weight[0], bias, one("normalizer.mean", 0.0), one("normalizer.var", 1.0).sqrt(), source.function)


def _tensors(source: BeaverSource, names: Sequence[str]) -> dict[str, Tensor]:
    """Those of the named tensors that a checkpoint holds, in one file or several."""
    index = _find(source.key, source.path, source.revision, INDEX)
    files = dict.fromkeys(names, SINGLE)
    if index is not None:
        files = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    found: dict[str, Tensor] = {}
    for file in sorted({files[name] for name in names if name in files}):
        with safe_open(_file(source.key, source.path, source.revision, file), "pt") as tensors:
            held = set(tensors.keys())
            found |= {name: tensors.get_tensor(name) for name in names if name in held}
    return found


def _file(key: str, path: str, revision: str | None, name: str) -> Path:
    """A file of a folder or of the hub.

    Args:
        key: what the path stands under.
        path: a folder or a hub id.
        revision: of the hub.
        name: of the file.

    Raises:
        ConfigError: if it is not there.
    """
    found = _find(key, path, revision, name)
    if found is None:
        raise ConfigError(f"{key}={path}: holds no {name}")
    return found


def _find(key: str, path: str, revision: str | None, name: str) -> Path | None:
    try:
        found = cached_file(path, name, revision=revision, _raise_exceptions_for_missing_entries=False)
    except OSError as error:
        raise ConfigError(f"{key}={path}: {str(error).splitlines()[0]}") from None
    return None if found is None else Path(found)
