"""front.html: the front as a page that people look at, click and send around. One file, offline."""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignlab.config.hydra.command import commands_of
from alignlab.config.uses import leaves
from alignlab.front.catalogue import meaning
from alignlab.front.collect import REFERENCE, RESULT, Collection, FrontPoint
from alignlab.front.comparisons import dominance, settings_of, told_apart
from alignlab.front.figures import REFERENCE_STYLE, styles_of
from alignlab.front.methods import cost_of
from alignlab.front.metrics import ExactCurve
from alignlab.front.said import Said, differences, learning_curves, read_said
from alignlab.front.series import weight_label
from alignlab.front.table import csv_lines
from alignlab.pages import Link, packed, visible, write_page
from alignlab.runs.policy import policy_adapter, policy_run
from alignlab.runs.result import known_config
from alignlab.stats import holm

MOST_BYTES = 12_000_000
"""Of the packed samples: the page stays below 15 MB."""
MOST_COMPARED = 40
"""Policies of which any two are compared; beyond, the page would wait for thousands of intervals."""
HARMLESS_DATA = ("toy",)
"""dataset.kind whose texts nobody needs to be spared; all others are folded until asked."""
X_OF_CURVES = ("step", "epoch")
"""Of the learning curves; all else of them can be drawn."""
NOT_SHOWN = ("paths", "force")
"""Of the settings: where a run lies on this machine is no part of what it was."""
SCRIPTS = ("front_logic.js", "front_labels.js", "front_reading.js", "front_table.js", "front_plot.js", "front.js")


@dataclass(frozen=True)
class Names:
    """What the page is of."""

    dataset: str
    model: str


def write_front_page(
    collection: Collection,
    path: Path,
    *,
    names: Names,
    exact: ExactCurve | None,
    reference: Sequence[float] | None,
    preview: ExactCurve | None = None,
    links: Sequence[Link] = (),
    notes: Sequence[str] = (),
    compared: Mapping[str, Any] | None = None,
) -> Path:
    """Write the page atomically and return its path.

    Args:
        collection: of one front, with at least one point.
        path: the file; links to runs and adapters are relative to its folder.
        names: of data and model.
        exact: the exact front.
        reference: the reference policy's mean on each axis.
        preview: the front estimated from the reference's samples.
        links: to other pages and files.
        notes: sentences above the plot.
        compared: of `comparisons`: which policies another one dominates.
    """
    said = [read_said(point.folder) for point in collection.points]
    makers = [policy_run(point.folder, _json(point.folder / RESULT)) for point in collection.points]
    prompts = _prompts(said)
    curves = [learning_curves(maker) for maker in makers]
    blobs, kept = _fitting(said, curves, prompts)
    asked = _asked(said, kept)
    values = [_values(point) for point in collection.points]
    data = {
        "title": f"{visible(names.dataset)}: {visible(names.model)}",
        "axes": list(collection.axes),
        "metrics": _metrics(collection, values),
        "policies": _policies(collection.points, makers, said, values, base=path.parent),
        "styles": _styles(collection),
        **_compared(collection, compared),
        "csv": csv_lines(collection, path.parent),
        "failures": _failures(collection, path.parent),
        **_landmarks(collection, exact=exact, preview=preview, reference=reference),
        "differences": _differences(collection, said),
        "compared": len(said) <= MOST_COMPARED,
        "prompts": {"all": len(prompts), "kept": len(kept)},
        **_choices(asked, said, curves),
        "folded": not all(_is_harmless(known_config(point.folder)) for point in collection.points),
    }
    return write_page(
        path,
        "front.html.j2",
        title=f"Front of {names.model} on {names.dataset}",
        links=links,
        scripts=SCRIPTS,
        notes=[visible(note) for note in notes],
        private=bool(data["folded"]),
        data=packed(data),
        prompts=packed(asked),
        blobs=blobs,
    )


def _asked(said: Sequence[Said], kept: Sequence[str]) -> list[dict[str, str | None]]:
    """Text and category of each prompt that the page keeps."""
    texts = {key: text for one in said for key, text in one.texts.items()}
    categories = {key: text for one in said for key, text in one.categories.items()}
    return [{"text": visible(texts[key]), "category": _shown(categories.get(key))} for key in kept]


def _choices(
    asked: Sequence[Mapping[str, str | None]], said: Sequence[Said], curves: Sequence[Mapping[str, Any]]
) -> dict[str, list[str]]:
    """Names that the page offers before it unpacks what they are of; a link that says another one is wrong there.

    Args:
        asked: the prompts.
        said: the samples of each policy.
        curves: its learning curves.
    """
    scores = dict.fromkeys(visible(name) for one in said for name in one.scores)
    drawn = dict.fromkeys(name for one in curves for name in one if name not in X_OF_CURVES)
    categories = {row["category"] or "" for row in asked}
    return {"categories": sorted(categories - {""}), "scores": list(scores), "curves": list(drawn)}


def _json(file: Path) -> dict[str, Any]:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _is_harmless(record: Mapping[str, Any]) -> bool:
    data = record.get("dataset")
    return isinstance(data, dict) and data.get("kind") in HARMLESS_DATA


def _metrics(collection: Collection, values: Sequence[Mapping[str, list[Any]]]) -> list[dict[str, Any]]:
    """Every metric that some policy has, the axes first.

    Args:
        collection: of the front.
        values: of each policy, of `_values`.
    """
    names = dict.fromkeys([*collection.axes, *(name for one in values for name in one)])
    known = [name for name in names if any(name in one and one[name][0] is not None for one in values)]
    return [meaning(name, is_axis=name in collection.axes).as_record(name) for name in known]


def _compared(collection: Collection, found: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the terminal says of all comparisons: one sentence, and who is dominated, with indices of the policies.

    Args:
        collection: of the front.
        found: of `comparisons`.
    """
    if found is None or not found["comparisons"]:
        return {"told": "", "dominated": []}
    index_of = {point.folder: index for index, point in enumerate(collection.points)}
    settings = settings_of(collection.points)
    runs = {label: [index_of[run.folder] for run in setting.runs] for label, setting in settings.items()}
    rows = [
        {"text": visible(dominance(one)), "pair": [runs[one[end]] for end in ("by", "point")]}
        for one in found["dominated"]
    ]
    return {"told": visible(told_apart(found)), "dominated": rows}


def _styles(collection: Collection) -> dict[str, dict[str, object]]:
    """Series -> its colours and mark, those of front.png; `reference` is the reference's, a policy or not."""
    algorithms = {point.series: point.algorithm for point in collection.points if point.algorithm != REFERENCE}
    references = {point.series: REFERENCE_STYLE for point in collection.references}
    known = {**styles_of(algorithms), **references, REFERENCE: REFERENCE_STYLE}
    return {visible(name): style.as_record() for name, style in known.items()}


def _finite(value: object) -> float | None:
    """A number of a file that anyone may have written; None for whatever else."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _values(point: FrontPoint) -> dict[str, list[Any]]:
    """Metric -> mean, both ends of its interval, n, prompts and values unknown; the training's cost is one of them."""
    found: dict[str, list[Any]] = {
        name: [one.mean, one.low, one.high, one.n, one.groups, one.missing] for name, one in point.metrics.items()
    }
    seconds = _finite(cost_of(point.folder).training)
    return found if seconds is None else {**found, "training_seconds": [seconds, None, None, 1, None, 0]}


def _policies(
    points: Sequence[FrontPoint],
    makers: Sequence[Path],
    said: Sequence[Said],
    values: Sequence[Mapping[str, list[Any]]],
    *,
    base: Path,
) -> list[dict[str, Any]]:
    """What the page says of each policy; the arguments are those of `_policy`, one for each point."""
    records = [known_config(maker) for maker in makers]
    parts = zip(points, makers, records, commands_of(records), said, values, strict=True)
    return [_policy(*part, base=base) for part in parts]


def _policy(
    point: FrontPoint,
    maker: Path,
    record: Mapping[str, Any],
    command: str | None,
    said: Said,
    values: Mapping[str, list[Any]],
    *,
    base: Path,
) -> dict[str, Any]:
    """What the page says of one policy; settings, command and cost are those of the run that made it.

    Args:
        point: of the front.
        maker: the run that made the policy; the point's own run unless this is an evaluation of an adapter.
        record: the maker's config.json.
        command: makes it again.
        said: the policy's samples.
        values: of `_values`.
        base: folder of the page.
    """
    run = os.path.relpath(point.folder, base)
    adapter = policy_adapter(point.folder, _json(point.folder / RESULT))
    seconds = _json(maker / RESULT).get("seconds")
    return {
        "id": hashlib.sha256(Path(run).as_posix().encode()).hexdigest()[:8],
        "run": visible(os.path.relpath(maker, base)),
        "evaluation": None if maker == point.folder else visible(run),
        "series": visible(point.series),
        "w": weight_label(point),
        "weights": {visible(name): weight for name, weight in point.weights.items()},
        "seed": point.seed,
        "beta": point.beta,
        "loss": visible(point.loss_type),
        "seconds": _finite(seconds.get("total")) if isinstance(seconds, dict) else None,
        "metrics": values,
        "unproven": list(map(visible, point.unproven)),
        "settings": _settings(point, record),
        "command": None if command is None else visible(command),
        "adapter": None if adapter is None else visible(os.path.relpath(adapter, base)),
        "samples": len(said.responses),
    }


def _settings(point: FrontPoint, record: Mapping[str, Any]) -> dict[str, str]:
    """Dotted key -> value of a config, lists as text; a policy without weights has no w."""
    left_out = NOT_SHOWN if point.weights else (*NOT_SHOWN, "w", "weights")
    found = {}
    for key, value in leaves(record):
        if key.split(".")[0] not in left_out:
            text = ", ".join(map(str, value)) if isinstance(value, list) else value
            found[visible(key)] = "null" if text is None else visible(text)
    return found


def _failures(collection: Collection, base: Path) -> list[dict[str, str]]:
    return [
        {
            "run": visible(os.path.relpath(run.folder, base)),
            "status": visible(run.status),
            "error": visible(run.error),
        }
        for run in collection.failures
    ]


def _landmarks(
    collection: Collection, *, exact: ExactCurve | None, preview: ExactCurve | None, reference: Sequence[float] | None
) -> dict[str, Any]:
    """What is drawn beside the policies."""
    at = None if reference is None else dict(zip(collection.axes, reference, strict=True))
    return {"exact": _exact(exact), "preview": _exact(preview), "reference": at}


def _exact(exact: ExactCurve | None) -> dict[str, Any] | None:
    if exact is None:
        return None
    columns = {axis: exact.means_KM[:, index].tolist() for index, axis in enumerate(exact.axes)}
    return {"weights": exact.weights_KM.tolist(), "values": {**columns, "kl": exact.kl_K.tolist()}}


def _differences(collection: Collection, said: Sequence[Said]) -> list[dict[str, Any]]:
    if len(said) > MOST_COMPARED:
        return []
    scored = {name for one in said for name in one.scores}
    known = dict.fromkeys(name for one in said for name in (*collection.axes, *one.scores) if name in scored)
    found = differences(said, list(known))
    corrected = holm([one["p"] for one in found])
    return [{**one, "p_holm": p} for one, p in zip(found, corrected, strict=True)]


def _prompts(said: Sequence[Said]) -> list[str]:
    """Keys of all prompts, those of the most policies first, else in the order in which they were asked."""
    counts: dict[str, int] = {}
    for one in said:
        for key in one.texts:
            counts[key] = counts.get(key, 0) + 1
    return sorted(counts, key=lambda key: -counts[key])


def _fitting(
    said: Sequence[Said], curves: Sequence[Mapping[str, Any]], prompts: Sequence[str]
) -> tuple[list[str], list[str]]:
    """The packed samples of each policy on as many prompts as fit the page, and these prompts."""
    kept = list(prompts)
    while True:
        index_of = {key: index for index, key in enumerate(kept)}
        blobs = [packed({**_samples(one, index_of), "curves": own}) for one, own in zip(said, curves, strict=True)]
        size = sum(map(len, blobs))
        if size <= MOST_BYTES or not kept:
            return blobs, kept
        kept = kept[: int(len(kept) * 0.9 * MOST_BYTES / size)]


def _samples(said: Said, index_of: Mapping[str, int]) -> dict[str, Any]:
    rows = [index for index, key in enumerate(said.prompts) if key in index_of]
    return {
        "prompt": [index_of[said.prompts[row]] for row in rows],
        "response": [visible(said.responses[row]) for row in rows],
        "scores": {visible(name): [_short(values[row]) for row in rows] for name, values in said.scores.items()},
    }


def _short(value: float | None) -> float | None:
    """A score as people read it; means and intervals are of the whole numbers."""
    return None if value is None else float(f"{value:.5g}")


def _shown(text: str | None) -> str | None:
    return None if text is None else visible(text)
