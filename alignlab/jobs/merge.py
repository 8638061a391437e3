"""Adds a LoRA adapter into its base model and writes an ordinary model folder."""

from dataclasses import asdict
from typing import Any

import torch

from alignlab.config.plan import Plan
from alignlab.config.schema import MergeConfig
from alignlab.io.atomic import new_folder, write_json
from alignlab.models.adapters import adapter_for
from alignlab.models.base import Base
from alignlab.models.cards import CARD, ClassifierCard, save_card
from alignlab.models.merge import MergeReport, merge_adapter
from alignlab.prerequisites.models import forget_models, reference
from alignlab.rewards.classifier import new_classifier
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome

SHOWN = 3
"""Names of replaced weights in one line."""


def run(plan: Plan[MergeConfig], run: RunFolder, outcome: Outcome) -> None:
    """Merge, cast, save with the tokenizer; `model=hf model.path=RUN/model` then loads it as any other model.

    Args: every job's, see `alignlab.jobs`.
    """
    algorithm = plan.algorithm
    with run.stage("prerequisites"):
        base = reference(plan.model)
    template = plan.model.settings.prompt_template
    adapter = adapter_for(
        "algorithm.adapter", str(algorithm.adapter), base_id=base.id, template=template, may_classify=True
    )
    classifier = adapter.card if isinstance(adapter.card, ClassifierCard) else None
    outcome.inputs |= {"model": base.id, "revision": base.revision, "adapter": adapter.id}
    dtype = getattr(torch, algorithm.dtype) if algorithm.dtype else base.model.dtype
    forget_models()  # the merge uses the resident model up
    with run.stage("merging"):
        model = _classifier(base) if adapter.classifies else base.model
        merged, report = merge_adapter(model, adapter.folder, dtype=dtype, key="algorithm.adapter")
    name = str(dtype).removeprefix("torch.")
    with run.stage("saving"), new_folder(run.path / "model") as folder:
        merged.save_pretrained(folder)
        base.tokenizer.save_pretrained(folder)
        made_of = {"base": base.id, "adapter": outcome.inputs["adapter"], "dtype": name, "prompt_template": template}
        if classifier is None:
            write_json(folder / CARD, {"merged": made_of})
        else:
            save_card(folder, classifier)
    outcome.artifacts["model"] = "model"
    outcome.extra["cast"] = _cast_record(report, name)
    _say_loss(report, name)


def _classifier(base: Base) -> Any:
    """The base model under a score head, which the adapter brings."""
    return new_classifier(base.path, revision=base.revision, dtype=base.model.dtype, seed=0)


def _cast_record(report: MergeReport, dtype: str) -> dict[str, object]:
    """What result.json keeps: the whole, and each layer."""
    whole = {"dtype": dtype, "max_lost": report.max_lost, "share_lost": report.share_lost}
    layers = [{**asdict(layer), "share_lost": layer.share_lost} for layer in report.layers]
    return {**whole, "share_unmoved": report.share_unmoved, "replaced": list(report.replaced), "layers": layers}


def _say_loss(report: MergeReport, dtype: str) -> None:
    if report.replaced:
        more = f" and {len(report.replaced) - SHOWN} more" if len(report.replaced) > SHOWN else ""
        say(f"the adapter's own in the place of the base model's: {', '.join(report.replaced[:SHOWN])}{more}")
    if not report.share_lost:
        say(f"merged in float32, kept as {dtype}: nothing of the adapter is lost")
        return
    assert report.worst is not None
    say(
        f"merged in float32, cast to {dtype}: the error is {report.share_lost:.2%} of the adapter's change (in "
        f"{report.worst.name} {report.worst.share_lost:.2%}), {report.max_lost:.2g} at most on one weight; "
        f"{report.share_unmoved:.2%} of the changed weights are back at the base model's value"
    )
