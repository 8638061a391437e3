"""The ends of a front: each objective's own policy, as an adapter that the config names, or found or made."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from alignlab.config.objectives import Objectives
from alignlab.config.parts import RewardSource
from alignlab.models.adapters import adapter_for, adapter_id
from alignlab.models.cards import AdapterCard, read_card
from alignlab.models.plain_lora import require_plain
from alignlab.models.saved_adapter import adapter_settings, require_beta
from alignlab.prerequisites.rewards import RewardParts, implicit_adapter
from alignlab.runs.progress import say


@dataclass(frozen=True)
class Endpoint:
    """The policy of one objective alone, pi_ref * exp(r/beta), as a plain LoRA."""

    objective: str
    weight: float
    folder: Path
    id: str
    """Hash of what the adapter does to its base."""
    card: AdapterCard | None
    key: str
    """What it stands under, e.g. `algorithm.adapters.safer`."""


def endpoints(
    adapters: Mapping[str, str],
    rewards: Mapping[str, RewardSource],
    objectives: Objectives,
    parts: RewardParts,
    *,
    template: str | None,
    beta: float,
) -> list[Endpoint]:
    """The endpoint of every objective that weighs something, in the objectives' order.

    Args:
        adapters: objective -> adapter, where the config names one.
        rewards: the implicit rewards of the others, whose policies are found or made.
        objectives: their weights.
        parts: the base model, and who runs what has to be made first.
        template: model.prompt_template of the run.
        beta: KL strength of every endpoint, 1/nat.

    Raises:
        ConfigError: if a named adapter was trained on another base, template or beta, or is no plain LoRA.
    """
    found = []
    for name, weight in objectives.others.items():
        key = f"algorithm.adapters.{name}"
        if name in adapters:
            adapter = adapter_for(key, adapters[name], base_id=parts.base.id, template=template)
            folder, card = adapter.folder, adapter.policy_card
            require_beta(key, folder, card, beta)
        else:
            folder, _ = implicit_adapter(rewards[name], parts)
            card = read_card(folder)
            say(f"endpoint of {name}: the policy behind its implicit reward, {folder}")
        require_plain(key, folder, adapter_settings(key, folder))
        found.append(Endpoint(name, weight, folder, adapter_id(folder), card, key))
    return found
