"""The model card of a front: its picture and table, metrics in the hub's model-index, licence and data."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignlab.data.licences import LICENCES
from alignlab.front.collect import Collection
from alignlab.pages import visible
from alignlab.publish.policies import Policy
from alignlab.stats import Interval

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~>$])")
_LINKS = {"&": "&amp;", "<": "&lt;", "://": "&#58;//", "www.": "www&#46;", "@": "&#64;"}
"""What would become an entity, a tag or a link by itself."""
_ACTS = re.compile("|".join(map(re.escape, _LINKS)))
_OWNER_AND_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class About:
    """What the card says beside the front's numbers."""

    title: str
    license: str | None
    """The hub's name of it; None where its owner has not said."""
    base: str | None
    """Path of the base model, or its id on the hub."""
    dataset_kind: str
    dataset_hub: str | None
    scorers: str
    """Objective and kind of its scorer."""
    formats: Sequence[str]
    """What is written beside the card."""
    texts: bool
    """Whether the logs hold texts."""


def is_hub_id(path: str | None) -> bool:
    """Whether a model's path has the form of an id on the hub and is no folder here that is written otherwise."""
    return bool(path and _OWNER_AND_NAME.fullmatch(path) and not path.startswith("."))


def card(collection: Collection, policies: Sequence[Policy], about: About) -> str:
    """The card, Markdown with the hub's YAML header.

    Args:
        collection: the front, with at least one point.
        policies: of its points.
        about: everything else.
    """
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        model_name=about.title,
        license=about.license,
        base_model=about.base if is_hub_id(about.base) else None,
        datasets=[about.dataset_hub] if about.dataset_hub else None,
        library_name="peft",
        pipeline_tag="text-generation",
        tags=["alignlab", "alignment", *dict.fromkeys(one.point.algorithm for one in policies)],
        eval_results=_eval_results(collection, policies, about),
    )
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {markdown(about.title)}",
        "One adapter a row: each is a choice between the objectives. Higher is better on every axis.",
        "![The front](front.png)" if len(collection.axes) > 1 else "",
        _table(collection, policies),
        "Means over held-out prompts with 95 % intervals; n counts samples. KL to the reference is in nats. "
        f"Scored by: {markdown(about.scorers)}.",
        _failed(collection),
        "## Licence and data",
        _licence(about),
        "## Files",
        _files(policies, about),
        "## Made by",
        *(f"{markdown(one.name)}:\n\n    {visible(one.command).splitlines()[0]}" for one in policies if one.command),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _files(policies: Sequence[Policy], about: About) -> str:
    held = "prompts, responses and scores"
    if not about.texts:
        held = "scores; prompts and responses, which may be harmful, are left out (`algorithm.texts=true`)"
    lines = {
        "adapters": "`adapters/`: LoRA adapters in PEFT's format, one a trained policy",
        "study": "`study.db`: `optuna-dashboard sqlite:///study.db`",
        "logs": f"`logs/`: `inspect view --log-dir logs`; {held}",
    }
    there = [*about.formats, *(["adapters"] if any(one.adapter for one in policies) else [])]
    return "\n".join(
        ["- `front.csv`, `front.json`: every metric", *(f"- {lines[name]}" for name in lines if name in there)]
    )


def markdown(text: object) -> str:
    """Text in which nothing is Markdown or HTML, on one line."""
    line = _MARKDOWN.sub(r"\\\1", " ".join(visible(text).split()))
    return _ACTS.sub(lambda found: _LINKS[found[0]], line)


def _eval_results(collection: Collection, policies: Sequence[Policy], about: About) -> list[Any]:
    """Every axis and the KL of every policy, as the hub's model-index has them."""
    from huggingface_hub import EvalResult

    found = []
    for policy in policies:
        for name in (*collection.axes, "kl"):
            interval = policy.point.metrics.get(name)
            if interval is None or interval.mean is None:
                continue
            arguments = {"policy": policy.name, "n": interval.n, "groups": interval.groups}
            ends = {} if interval.bounds is None else {"ci95": list(interval.bounds)}
            found.append(
                EvalResult(
                    task_type="text-generation",
                    dataset_type=about.dataset_hub or about.dataset_kind,
                    dataset_name=policy.point.dataset or about.dataset_kind,
                    metric_type=visible(name),
                    metric_name=f"{visible(name)} ({policy.name})",
                    metric_value=interval.mean,
                    metric_args={**arguments, **ends},
                )
            )
    return found


def _table(collection: Collection, policies: Sequence[Policy]) -> str:
    names = [*collection.axes, *(["kl"] if any("kl" in one.point.metrics for one in policies) else [])]
    rows = [["policy", *names, "n"], ["---", *["---:"] * (len(names) + 1)]]
    for policy in policies:
        metrics = policy.point.metrics
        counts = dict.fromkeys(str(metrics[axis].n) for axis in collection.axes)
        rows.append([policy.name, *(_cell(metrics.get(name)) for name in names), " / ".join(counts)])
    head, rule, *body = rows
    lines = [[markdown(cell) for cell in head], rule, *([markdown(cell) for cell in row] for row in body)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(interval: Interval | None) -> str:
    if interval is None or interval.mean is None:
        return "unknown"
    ends = "" if interval.bounds is None else " [{:.3g}, {:.3g}]".format(*interval.bounds)
    return f"{interval.mean:.3g}{ends}"


def _failed(collection: Collection) -> str:
    return f"{len(collection.failures)} runs of this front failed and have no row." if collection.failures else ""


def _licence(about: About) -> str:
    own = f"`{about.license}`" if about.license else "not stated by whoever published this (`algorithm.license`)"
    data = markdown(about.dataset_hub or about.dataset_kind)
    of_data = LICENCES.get(about.dataset_kind, "unknown, see its source")
    base = markdown(about.base) if is_hub_id(about.base) else "a model that is not on the hub"
    return (
        f"Licence of the adapters: {own}. Trained on {data}, licence of its rows: {of_data}. Base model: {base}; its "
        "licence binds the adapters too."
    )
