"""Write the ordinary LoRA that a conditioned adapter is at one w; PEFT, vLLM and merge take it. No model is loaded."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from alignlab.config.plan import Plan
from alignlab.config.schema import ExportConfig
from alignlab.io.atomic import new_folder
from alignlab.models.adapters import adapter_id
from alignlab.models.cards import AdapterCard, save_card
from alignlab.models.conditioned import write_adapter_at
from alignlab.models.saved_adapter import conditioned_card
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome


def run(plan: Plan[ExportConfig], run: RunFolder, outcome: Outcome) -> None:
    """Check the adapter, write the one at w with its card.

    Args: every job's, see `alignlab.jobs`.
    """
    source = Path(str(plan.algorithm.adapter))
    card = conditioned_card("algorithm.adapter", source)
    outcome.inputs |= {"model": card.base, "adapter": adapter_id(source)}
    export(source, card, plan.objectives.weights, run.path / "adapter")
    outcome.artifacts["adapter"] = "adapter"
    outcome.beta, outcome.loss_type, outcome.recipe = card.beta, card.loss_type, card.recipe
    say(f"an ordinary LoRA at {', '.join(f'{name} {weight:g}' for name, weight in plan.objectives.weights.items())}")


def export(source: Path, card: AdapterCard, weights: Mapping[str, float], target: Path) -> None:
    """Write the adapter at one w, whole or not at all.

    Args:
        source: the conditioned adapter.
        card: its own.
        weights: objective -> weight.
        target: where to.
    """
    with new_folder(target) as folder:
        write_adapter_at(source, folder, weights=weights, ranks=card.ranks, shared_rank=card.shared_rank)
        own = replace(card, weights=dict(weights), conditioned=False, ranks={}, shared_rank=0)
        save_card(folder, own)
