"""Write a front: the table, front.csv, front.json, front.png and front.html of runs that may be compared."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignlab.front.collect import Collection, FrontPoint
from alignlab.front.comparisons import comparisons
from alignlab.front.comparisons import sentences as comparison_sentences
from alignlab.front.figures import save_figure
from alignlab.front.methods import compare_methods, methods_table
from alignlab.front.metrics import ExactCurve
from alignlab.front.page import Names, write_front_page
from alignlab.front.picture import front_figure, front_subject
from alignlab.front.series import CHANCE, are_accuracies
from alignlab.front.summary import front_summary
from alignlab.front.table import differences_table, front_table, quality_table, write_csv
from alignlab.front.targets import sentences, target_summary, target_table
from alignlab.io.atomic import write_json
from alignlab.pages import Link
from alignlab.runs.progress import say
from alignlab.runs.tables import print_table

FOR_PAPERS = (".svg", ".pdf")
"""The picture again, to be scaled to a column."""


def write_front(
    collection: Collection,
    target: Path,
    *,
    exact: ExactCurve | None,
    reference: Sequence[float] | None,
    dataset: str,
    model: str,
    preview: ExactCurve | None = None,
    links: Sequence[Link] = (),
    targets: Mapping[str, float] | None = None,
) -> dict[str, str]:
    """Print the tables and write front.csv, front.json, front.png (.svg, .pdf) and front.html; returns these artifacts.

    Args:
        collection: of one front.
        target: an existing folder.
        exact: the exact front, where the rewards are known.
        reference: the reference policy's mean on each axis; chance where the axes are accuracies.
        dataset: its name, for the title.
        model: its name, for the title.
        preview: the estimated front, where `algorithm=preview` was run.
        links: of the page, beside those to the files.
        targets: objective -> the mean that must at least be reached.

    Raises:
        ConfigError: for a target of an unknown objective.
    """
    reference = reference or _reference(collection)
    print_table(front_table(collection, exact))
    quality = quality_table(collection)
    if quality is not None:
        print_table(quality)
    write_csv(collection, target / "front.csv")
    artifacts = {"csv": "front.csv"}
    notes: list[str] = []
    compared = None
    if collection.points:
        known: dict[str, Any] = {"exact": exact, "reference": reference, "targets": targets or {}}
        notes, compared = _write_summary(collection, target, **known)
        artifacts["summary"] = "front.json"
    say(f"table:   {target / 'front.csv'}")
    curves = {"exact": exact, "preview": preview}
    if collection.points and len(collection.axes) > 1:
        title = f"{dataset}: {front_subject(collection.axes)} ({model})"
        artifacts |= _draw(collection, target, reference=reference, title=title, **curves)
    if collection.points:
        write_front_page(
            collection,
            target / "front.html",
            names=Names(dataset, model),
            reference=None if collection.references else reference,  # else it is a policy of the page already
            notes=notes,
            compared=compared,
            links=[*links, *(Link(name, name) for name in artifacts.values())],
            **curves,
        )
        artifacts["page"] = "front.html"
        say(f"page:    {target / 'front.html'}")
    return artifacts


def _draw(collection: Collection, target: Path, **drawn: Any) -> dict[str, str]:
    """Write front.png, .svg and .pdf; returns them as artifacts.

    Args:
        collection: of the front.
        target: the folder.
        **drawn: for `front_figure`.
    """
    figure = front_figure(collection.policies, measures=_measures(collection.points[0]), **drawn)
    path = save_figure(figure, target / "front.png", also=FOR_PAPERS)
    say(f"picture: {path}, front.svg, front.pdf")
    return {"picture": "front.png", "svg": "front.svg", "pdf": "front.pdf"}


def _write_summary(
    collection: Collection,
    target: Path,
    *,
    exact: ExactCurve | None,
    reference: Sequence[float] | None,
    targets: Mapping[str, float],
) -> tuple[list[str], dict[str, Any] | None]:
    """Write front.json, print differences and targets; returns the targets' answers in words, and all comparisons."""
    summary = front_summary(collection.policies, exact=exact, reference=reference)
    summary["methods"] = compare_methods(collection.policies)
    answers = target_summary(collection.policies, targets)
    summary["comparisons"] = compared = comparisons(collection.points)
    write_json(target / "front.json", {**summary, **({"target": answers} if answers else {})})
    differences = differences_table(summary)
    if differences is not None and summary["methods"] is None:  # several methods' differences are in front.json
        print_table(differences)
    if summary["methods"] is not None:
        print_table(methods_table(summary["methods"]))
    _say_directions(summary)
    for sentence in comparison_sentences(compared):
        say(sentence)
    if answers:
        print_table(target_table(answers))
    said = sentences(answers) if targets else []
    for sentence in said:
        say(sentence)
    return said, compared


def _reference(collection: Collection) -> list[float] | None:
    """The reference's means over its seeds, chance for accuracies, None where nobody measured it."""
    if collection.references:
        means: list[float] = np.mean([point.position for point in collection.references], axis=0).tolist()
        return means
    if not are_accuracies(collection.axes):
        return None
    say(f"axes: held-out preference accuracies; {_scorer_hint(collection)} scores what the policies say instead")
    return [CHANCE] * len(collection.axes)


def _scorer_hint(collection: Collection) -> str:
    names = [name for point in collection.points[:1] for name in point.objectives]
    return "scorers=beaver, or " + " ".join(f"scorers.{name}.kind=..." for name in names) + ","


def _measures(point: FrontPoint) -> dict[str, str]:
    """Axis -> what it measures, where a scorer gives it."""
    kinds = point.scorers or {}
    axes = zip(point.objectives, point.axes, strict=True)
    return {axis: f"mean score by {kinds[name]}" for name, axis in axes if name in kinds}


def _say_directions(summary: Mapping[str, Any]) -> None:
    """For more than two objectives, where no line shows it: whether each mean follows its weight."""
    for name, one in summary["series"].items():
        followed = one["follows_weight"]
        if len(followed) > 2:
            parts = [f"{found['axis']} {found['rho']:.2f}" for found in followed.values() if found["rho"] is not None]
            say(f"{name}: rank correlation of each mean with its own weight: {', '.join(parts) or 'unknown'}")
