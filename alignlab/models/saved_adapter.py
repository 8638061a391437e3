"""A saved LoRA adapter, checked by its files before a model loads. Imports no torch."""

import hashlib
import json
import math
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignlab.config.fingerprints import fingerprint
from alignlab.errors import ConfigError, require
from alignlab.models.cards import AdapterCard, ClassifierCard, check_recorded_files, read_card, read_classifier_card
from alignlab.models.checkpoint import check_weights_file, read_json, tensor_shapes
from alignlab.models.paths import ADAPTER, ADAPTER_WEIGHTS, check_folder

NOT_IN_ID = (
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "peft_version",
    "lora_dropout",
    "task_type",
    "auto_mapping",
    "parent_library",
)
"""Settings of a saved adapter that move with machines and libraries and leave its scores alone."""
SECONDS_TO_MATCH = 10
"""Processor time for matching an adapter's patterns with the names of a model's layers, which takes milliseconds."""
LARGEST_SCALE = 1e6
"""Of a rank or a lora_alpha: float32 overflows where a product of weights is scaled by far more."""
_PLAIN_NAME = re.compile(r"[\w.-]+")
_EMBEDDINGS = ("embed_tokens", "lm_head", "wte", "embed_in", "embed_out")


@dataclass(frozen=True)
class SavedAdapter:
    """An adapter that was checked as far as its files tell."""

    folder: Path
    settings: dict[str, Any]
    """PEFT's, from adapter_config.json."""
    card: AdapterCard | ClassifierCard | None
    """What alignlab wrote beside it; None for an adapter made elsewhere."""
    beta: float | None
    """KL strength that it was trained with, 1/nat: its card's, else the one given; None where nobody says."""

    @property
    def classifies(self) -> bool:
        """Whether it belongs under a score head."""
        return self.settings.get("task_type") == "SEQ_CLS"

    @property
    def policy_card(self) -> AdapterCard | None:
        """The card of a preference-trained adapter."""
        return self.card if isinstance(self.card, AdapterCard) else None


def checked_adapter(
    key: str,
    folder: Path,
    *,
    template: str | None,
    beta: float | None = None,
    needs_beta: bool = False,
    may_classify: bool = False,
    conditioned: bool = False,
) -> SavedAdapter:
    """An adapter whose files are whole, of a kind that alignlab applies, and made for this template and beta.

    Args:
        key: what it stands under, e.g. `algorithm.rewards.safer.adapter`.
        folder: a folder on this machine.
        template: model.prompt_template of the run.
        beta: the beta that the config gives for it, if it gives one.
        needs_beta: refuse an adapter whose beta nobody says.
        may_classify: take a classifier's adapter too, which belongs under a score head.
        conditioned: take an adapter that is a function of w, and no other.

    Raises:
        ConfigError: `KEY=FOLDER: ...`, naming what does not fit.
    """
    what = f"{key}={folder}"
    settings = adapter_settings(key, folder)
    if settings.get("task_type") == "SEQ_CLS":
        parent = key.rpartition(".")[0]
        is_reward = parent.startswith(("algorithm.rewards.", "scorers.")) or parent == "reward"
        remedy = f"give {parent}.kind=classifier and {parent}.path" if is_reward else "give a policy's"
        require(may_classify, key, folder, f"is a classifier's; {remedy}")
        classifier = read_classifier_card(folder)
        if classifier is not None:
            check_recorded_files(what, folder, classifier)
        return SavedAdapter(folder, settings, classifier, None)
    card = read_card(folder)
    is_conditioned = card is not None and card.conditioned
    if is_conditioned and not conditioned:
        remedy = f"write the one at a w first: algorithm=export algorithm.adapter={folder} w=0.5"
        raise ConfigError(f"{what}: is a function of w, which nothing but its export applies; {remedy}")
    require(is_conditioned or not conditioned, key, folder, "is an ordinary adapter; give a modpo_conditioned run's")
    if card is None:
        if beta is None and needs_beta:
            raise ConfigError(
                f"{_beta_key(key)}=null: {folder} says nothing of the beta that it was trained with; give it"
            )
        return SavedAdapter(folder, settings, None, beta)
    if beta is not None and beta != card.beta:
        raise ConfigError(f"{_beta_key(key)}={beta:g}: the adapter was trained with beta={card.beta:g}")
    if card.prompt_template != template:
        raise ConfigError(
            f"{what}: was trained with model.prompt_template={card.prompt_template!r}, this run has {template!r}"
        )
    check_recorded_files(what, folder, card)
    return SavedAdapter(folder, settings, card, card.beta)


def require_beta(key: str, folder: Path, card: AdapterCard | None, beta: float) -> None:
    """Refuse an adapter whose card says another beta than algorithm.beta; without a card the config is believed.

    Args:
        key: what it stands under.
        folder: its folder.
        card: what alignlab wrote beside it.
        beta: algorithm.beta.

    Raises:
        ConfigError: naming both.
    """
    if card is not None and card.beta != beta:
        raise ConfigError(f"algorithm.beta={beta:g}: {key}={folder} was trained with beta={card.beta:g}")


def conditioned_card(key: str, folder: Path) -> AdapterCard:
    """The card of an adapter that is a function of w, whose files are whole.

    Raises:
        ConfigError: `KEY=FOLDER: ...`, above all for an ordinary adapter.
    """
    card = read_card(folder) if folder.is_dir() else None
    template = None if card is None else card.prompt_template  # no prompt is rendered
    found = checked_adapter(key, folder, template=template, conditioned=True).policy_card
    assert found is not None
    return found


def adapter_settings(key: str, folder: Path) -> dict[str, Any]:
    """PEFT's settings of a saved adapter whose files are whole and which is a LoRA.

    Raises:
        ConfigError: `KEY=FOLDER: ...`.
    """
    check_folder(key, str(folder), ADAPTER)
    if not folder.is_dir():
        raise ConfigError(f"{key}={folder}: must be a folder on this machine")
    what, settings = f"{key}={folder}", read_json(folder / ADAPTER)
    kind = settings.get("peft_type")
    if kind != "LORA":
        rule = "alignlab applies and merges LORA adapters only; merge it by PEFT and give the result as model.path"
        raise ConfigError(f"{what}: is of PEFT's kind {kind!r}; {rule}")
    _check_numbers(f"{what}: {ADAPTER}", settings)
    if settings.get("alora_invocation_tokens"):
        raise ConfigError(f"{what}: works from its invocation tokens on (aLoRA), which alignlab does not apply")
    if settings.get("auto_mapping"):
        settings = settings | {"auto_mapping": None}  # names a class to import, which nothing here needs
    shapes = tensors_of(folder)
    patterns = patterns_of(settings)
    names = sorted({_module_of(name) for name in shapes}) or [f"model.layers.{n}.self_attn.q_proj" for n in range(9)]
    match_patterns(f"{what}: {ADAPTER}", patterns, names)
    return settings


def _check_numbers(what: str, settings: dict[str, Any]) -> None:
    """Refuse ranks and scales that make no adapter, or one of NaN: JSON written by Python may hold it.

    Raises:
        ConfigError: naming the setting.
    """
    for name, is_rank in (("r", True), ("lora_alpha", False)):
        pattern = settings.get("rank_pattern" if is_rank else "alpha_pattern")
        values = [(name, settings.get(name, 8))]
        values += [(f"{name} of {key}", value) for key, value in (pattern.items() if isinstance(pattern, dict) else ())]
        for shown, value in values:
            is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            good = is_number and 0 < abs(value) <= LARGEST_SCALE and (not is_rank or (value > 0 and value % 1 == 0))
            rule = "a whole number > 0" if is_rank else "a finite number, not 0"
            if not good:
                rule = f"must be {rule}, at most {LARGEST_SCALE:g} in size; save the adapter again"
                raise ConfigError(f"{what}: {shown}={value!r:.40}: {rule}")


def check_vocabulary(what: str, folder: Path, size: int) -> None:
    """Refuse an adapter that holds embeddings of another vocabulary than the model's.

    Args:
        what: `KEY=FOLDER`.
        folder: the adapter's.
        size: rows of the base model's embeddings.

    Raises:
        ConfigError: naming both sizes and what to do.
    """
    for name, shape in tensors_of(folder).items():
        own = name.removesuffix(".weight").rpartition(".")[2]
        if own in _EMBEDDINGS and len(shape) == 2 and shape[0] != size:
            raise ConfigError(
                f"{what}: was trained on a vocabulary of {shape[0]} tokens, the base model has {size}; resize the base "
                "model (model.resize_token_embeddings), save it with the adapter's tokenizer and give that folder as "
                "model.path"
            )


def match_patterns(what: str, patterns: Iterable[str], names: Iterable[str]) -> set[str]:
    """Names that one of the regular expressions matches as a whole, found under a limit of processor time.

    Matching runs in a process of its own: an expression can take longer than the universe has lasted.

    Args:
        what: what an error begins with.
        patterns: regular expressions; plain names are not tried.
        names: of a model's modules.

    Raises:
        ConfigError: if an expression is none, or takes too long.
    """
    tried = [pattern for pattern in patterns if not _PLAIN_NAME.fullmatch(pattern)]
    if not tried:
        return set()
    asked = json.dumps([tried, list(names), SECONDS_TO_MATCH])
    done = subprocess.run([sys.executable, "-I", "-S", "-c", _MATCHER], input=asked, capture_output=True, text=True)
    if done.returncode == 0:
        return set(json.loads(done.stdout))
    shown = next((pattern for pattern in tried if len(pattern) < 200), tried[0][:80])
    fault = "is no regular expression" if done.returncode == 3 else f"takes more than {SECONDS_TO_MATCH} s to match"
    raise ConfigError(f"{what}: the pattern {shown!r} {fault}; list the modules' names instead")


_MATCHER = """
import json, re, signal, sys
patterns, names, seconds = json.loads(sys.stdin.read())
signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
try:
    compiled = [re.compile(pattern) for pattern in patterns]
except (re.error, RecursionError, OverflowError):
    sys.exit(3)
found = [name for name in names if any([one.fullmatch(name) or one.match(name) and None for one in compiled])]
json.dump(found, sys.stdout)
"""
"""SIGVTALRM ends the process; both ways of matching that PEFT uses are tried."""


def adapter_id(folder: Path) -> str:
    """Hash of what an adapter does to its base: the weights, and the settings that scale and place them.

    Raises:
        FileNotFoundError: if the folder holds no weights.
    """
    weights = [folder / name for name in ADAPTER_WEIGHTS if (folder / name).is_file()]
    if not weights:
        raise FileNotFoundError(f"{folder}: holds none of {', '.join(ADAPTER_WEIGHTS)}")
    settings = json.loads((folder / ADAPTER).read_text())
    told = {
        key: sorted(value) if key.endswith("modules") and isinstance(value, list) else value  # PEFT saves a set
        for key, value in settings.items()
        if key not in NOT_IN_ID
    }
    text = json.dumps(told, sort_keys=True) + "".join(fingerprint(file) for file in weights)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tensors_of(folder: Path) -> dict[str, tuple[int, ...]]:
    """Tensors of the adapter; of the older pickled form none, which only torch could list."""
    file = folder / ADAPTER_WEIGHTS[0]
    if not file.is_file():
        check_weights_file(folder / ADAPTER_WEIGHTS[1])
        return {}
    shapes = tensor_shapes(file, plain=True)
    if not shapes:
        raise ConfigError(f"{file}: holds no tensor; save the adapter again")
    return shapes


def patterns_of(settings: dict[str, Any]) -> list[str]:
    """Every string among the settings that PEFT reads as a regular expression."""
    found: list[Any] = [settings.get(key) for key in ("target_modules", "exclude_modules", "layers_pattern")]
    found += (settings.get("layers_pattern") or ()) if isinstance(settings.get("layers_pattern"), list) else ()
    for key in ("rank_pattern", "alpha_pattern"):
        if isinstance(settings.get(key), dict):
            found += [rf"(?:.*\.)?({pattern})" for pattern in settings[key] if not _PLAIN_NAME.fullmatch(pattern)]
    return [pattern for pattern in found if isinstance(pattern, str)]


def _module_of(tensor: str) -> str:
    """`base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight` -> `model.layers.0.self_attn.q_proj`."""
    return tensor.removeprefix("base_model.model.").partition(".lora_")[0].removesuffix(".weight")


def _beta_key(key: str) -> str:
    return f"{key.rpartition('.')[0]}.beta"
