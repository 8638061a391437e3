"""What nothing needs below a run root and a cache; never a file that a finished run names."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from alignlab.io.atomic import UNFINISHED, remove_path
from alignlab.runs.folder import OF_THE_TRAINING, is_in_use
from alignlab.runs.result import RESULT, RunResult, read_result

OLD_S = 24 * 3600
"""Age in seconds from which an unfinished file is nobody's work in progress."""


@dataclass(frozen=True)
class Garbage:
    """One path that nothing needs."""

    path: Path
    reason: str

    @property
    def num_bytes(self) -> int:
        """What its removal frees."""
        files = [self.path] if self.path.is_file() else [one for one in self.path.rglob("*") if one.is_file()]
        return sum(file.stat().st_size for file in files if not file.is_symlink())

    def remove(self) -> None:
        """Remove it; a link is removed, not what it leads to."""
        remove_path(self.path)


def garbage_of(runs: Path, cache: Path) -> list[Garbage]:
    """Everything that nothing needs, sorted by path.

    A folder in use is left alone, and so is what a killed run left: the same command resumes from it.
    """
    results = {
        file.parent: result for file in sorted(runs.rglob(RESULT)) if (result := read_result(file.parent)) is not None
    }
    found = [*_torn(runs), *_torn(cache), *_of_trained_references(cache)]
    for folder, result in results.items():
        if result.status == "done" and not is_in_use(folder):
            found += _of_finished(folder, result)
    named = {(folder / name).resolve() for folder, result in results.items() for name in result.files}
    kept = [one for one in found if not any(one.path.resolve() in (file, *file.parents) for file in named)]
    outermost = {one.path for one in kept}
    return sorted((one for one in kept if outermost.isdisjoint(one.path.parents)), key=lambda one: one.path)


def known_models(runs: Path) -> set[str]:
    """Ids of the base models that some run's result names."""
    results = (read_result(file.parent) for file in runs.rglob(RESULT))
    return {str(result.inputs.get("model")) for result in results if result is not None}


def _of_finished(folder: Path, result: RunResult) -> Iterator[Garbage]:
    for name in OF_THE_TRAINING:
        if (folder / name).is_dir() and name not in result.artifacts.values():
            yield Garbage(folder / name, "of a finished run")
    for file in folder.rglob("*.damaged"):
        yield Garbage(file, "damaged, and made again")


def _torn(root: Path) -> Iterator[Garbage]:
    for path in root.rglob(".*"):
        if UNFINISHED.fullmatch(path.name) and time.time() - path.lstat().st_mtime > OLD_S:
            yield Garbage(path, "never finished")


def _of_trained_references(cache: Path) -> Iterator[Garbage]:
    for path in (cache / "references").glob(".*.checkpoints"):
        model = path.with_name(path.name.removeprefix(".").removesuffix(".checkpoints"))
        if (model / "alignlab.json").is_file():
            yield Garbage(path, "its model is trained")


def as_record(found: list[Garbage]) -> list[dict[str, object]]:
    """What result.json keeps."""
    rows = [{"path": str(one.path), "reason": one.reason, "bytes": one.num_bytes} for one in found]
    return list(json.loads(json.dumps(rows)))
