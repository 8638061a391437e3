"""Files that are whole or not there: written beside, flushed to disk, renamed."""

import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}")
"""Names of what is not yet whole."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A free name beside `path`; the file written there replaces `path` if the block ends well, else it is removed.

    The file is on disk before it is renamed, so a crash at any moment leaves the old content or the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        yield unfinished
        with unfinished.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a file's content, or leave it as it was."""
    write_lines(path, [text.encode()])


def write_lines(path: Path, lines: Iterable[bytes]) -> None:
    """Write bytes that come piece by piece, replacing the file whole."""
    with replacing(path) as unfinished, unfinished.open("xb") as stream:
        stream.writelines(lines)


def write_array(path: Path, values: "NDArray[Any]") -> None:
    """Write an array as .npy, replacing the file whole."""
    with replacing(path) as unfinished, unfinished.open("xb") as stream:
        import numpy as np

        np.save(stream, values, allow_pickle=False)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's content, replacing the target whole."""
    with replacing(target) as unfinished:
        shutil.copyfile(source, unfinished)


def write_json(path: Path, value: Any) -> None:
    """Write JSON that any reader takes; NaN and infinity are a ValueError."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write one JSON object a line."""
    write_text(path, "".join(json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n" for row in rows))


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `target` when the block ends well and vanishes otherwise.

    An existing target is replaced: it is unfinished work, or was forced.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    try:
        yield folder
        if target.exists():
            shutil.rmtree(target)
        os.replace(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_unfinished(folder: Path, below: Iterable[str] = (), *, of: str = "", age_s: float = 0.0) -> None:
    """Remove what killed processes left unfinished in a folder, and anywhere below some of its folders.

    The caller holds the folder, or gives an age at which no living process is still at it.

    Args:
        folder: may be missing.
        below: names of folders in it.
        of: start of the name of the file or folder whose unfinished forms go; empty for any.
        age_s: least seconds since the last change.
    """
    for path in [*folder.glob(".*"), *(path for name in below for path in (folder / name).rglob(".*"))]:
        with suppress(FileNotFoundError):
            is_old = time.time() - path.lstat().st_mtime >= age_s
            if is_old and UNFINISHED.fullmatch(path.name) and path.name.startswith(f".{of}"):
                remove_path(path)


def remove_path(path: Path) -> None:
    """Remove a file or a folder, as far as rights allow; of a link the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)
