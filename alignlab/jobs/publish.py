"""Writes a finished front as a model card, an Optuna study and inspect logs, and pushes it to the hub if asked."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignlab.config.plan import Plan
from alignlab.config.schema.publish import PublishConfig
from alignlab.errors import ConfigError
from alignlab.front.collect import Collection, collect
from alignlab.front.points import FRONT_CSV, run_folders
from alignlab.io.atomic import new_folder, write_text
from alignlab.publish.card import About, card
from alignlab.publish.hub import files_to_push, push
from alignlab.publish.logs import write_samples, write_verdicts
from alignlab.publish.policies import Policy, are_harmless, policies_of
from alignlab.publish.study import write_study
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome, recorded_config, require_finished

PUBLISHED = "published"
COPIED = ("front.png", "front.csv", "front.json")
"""Of the front; its page holds texts, and stays where it is."""


def run(plan: Plan[PublishConfig], run: RunFolder, outcome: Outcome) -> None:
    """Write everything into `published/`; push it, or say what would be pushed.

    Args: every job's, see `alignlab.jobs`.
    """
    settings = plan.algorithm
    front = Path(settings.front) if settings.front else newest_front(front_root(plan))
    collection = _collected(front)
    policies = policies_of(collection)
    texts = settings.texts or are_harmless(collection)
    with new_folder(run.path / PUBLISHED) as folder:
        for name in COPIED:
            if (front / name).is_file():
                shutil.copyfile(front / name, folder / name)
        if "study" in settings.formats:
            name = f"{plan.model.settings.name} on {plan.rows.settings.name}"
            write_study(folder / "study.db", name=name, collection=collection, policies=policies)
        if "logs" in settings.formats:
            _write_logs(folder / "logs", policies, settings, texts=texts)
        if "card" in settings.formats:
            write_text(folder / "README.md", card(collection, policies, _about(plan, policies, texts=texts)))
    outcome.artifacts[PUBLISHED] = PUBLISHED
    outcome.extra["texts"] = texts
    if not texts:
        say("prompts and responses are left out of the logs, they may be harmful; algorithm.texts=true writes them")
    _push(run.path / PUBLISHED, policies, settings.push, outcome)


def front_root(plan: Plan[Any]) -> Path:
    """Where the fronts of this model and dataset lie."""
    return plan.runs / "front" / plan.model.settings.name / plan.rows.settings.name


def newest_front(root: Path) -> Path:
    """The folder of the front that was written last.

    Raises:
        ConfigError: if there is none.
    """
    found = sorted(root.rglob(FRONT_CSV), key=lambda file: file.stat().st_mtime)
    if not found:
        raise ConfigError(f"algorithm.front=null: no front below {root}; run a sweep, or name the front's folder")
    return found[-1].parent


def _collected(front: Path) -> Collection:
    try:
        collection = collect(run_folders([front]))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if not collection.points:
        raise ConfigError(f"algorithm.front={front}: no finished policy in it; train some first")
    return collection


def _write_logs(folder: Path, policies: list[Policy], settings: PublishConfig, *, texts: bool) -> None:
    folder.mkdir()
    for policy in policies:
        if write_samples(folder, policy, texts=texts) is None:
            say(f"{policy.name}: no samples in its run, so no log")
    if settings.verdicts:
        from alignlab.course_correction.results import transcripts  # late: it imports torch
    for number, path in enumerate(map(Path, settings.verdicts), 1):
        result = require_finished("algorithm.verdicts", path)
        log = folder / f"verdicts_{number}.eval"
        write_verdicts(log, path, list(transcripts(path)), model=result.model, texts=texts and _is_toy(path))


def _is_toy(run: Path) -> bool:
    return bool(recorded_config(run)["dataset"]["kind"] == "toy")


def _about(plan: Plan[PublishConfig], policies: list[Policy], *, texts: bool) -> About:
    """Of model and data as the first policy's own config has them."""
    record = recorded_config(policies[0].point.folder)
    data, model = record["dataset"], record["model"]
    scorers = policies[0].point.scorers or {}
    golds = {name: "the toy's own reward" for name in policies[0].point.objectives if data["kind"] == "toy"}
    named: Mapping[str, str] = scorers or golds
    return About(
        title=f"Front of {model['name']} on {data['name']}",
        license=plan.algorithm.license,
        base=model.get("path"),
        dataset_kind=data["kind"],
        dataset_hub=None if data.get("path") else data.get("hub"),
        scorers=", ".join(f"{name} by {kind}" for name, kind in named.items()) or "labels of held-out pairs",
        formats=plan.algorithm.formats,
        texts=texts,
    )


def _push(folder: Path, policies: list[Policy], repo: str | None, outcome: Outcome) -> None:
    files = files_to_push(folder, policies)
    size = sum(path.stat().st_size for path in files.values()) / 1e6
    if repo is None:
        say(f"nothing is pushed; algorithm.push=OWNER/NAME would push {len(files)} files, {size:,.1f} MB:")
        for name, path in files.items():
            say(f"  {name}, {path.stat().st_size / 1e3:,.1f} kB")
    else:
        outcome.extra["pushed"] = push(repo, files)
        say(f"pushed {len(files)} files, {size:,.1f} MB: {outcome.extra['pushed']}")
    outcome.extra["published"] = list(files)
