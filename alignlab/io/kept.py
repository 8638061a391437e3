"""What the cache keeps for all runs: made once, read without a lock, checked by hashes, made again where damaged."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EROFS
from pathlib import Path

from filelock import FileLock

from alignlab.errors import ConfigError
from alignlab.io.atomic import remove_unfinished, write_text
from alignlab.io.hashes import file_hash

Fault = Callable[[Path], str | None]
"""Why a path cannot be used, in words; None where it can."""
Say = Callable[[str], None]


def keep(path: Path, *, cache: Path, fault: Fault, make: Callable[[], None], say: Say) -> None:
    """Have something in the cache: found whole, or made by one process while others wait.

    A warm cache is only read, so that it may be another user's. What is there and damaged is said and made again.

    Args:
        path: a file or folder below the cache.
        cache: paths.cache.
        fault: says why what lies there cannot be used.
        make: writes it, whole or not at all.
        say: takes a line for the user.

    Raises:
        ConfigError: if it has to be made and the cache cannot be written.
    """
    if path.exists() and fault(path) is None:
        return
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    with writing(cache, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        if path.exists():
            reason = fault(path)
            if reason is None:  # another process has made it by now
                return
            say(f"{path}: {reason}; made again")
        make()
        remove_unfinished(path.parent, of=f"{path.name}.")
    finally:
        lock.release()


@contextmanager
def writing(cache: Path, path: Path) -> Iterator[None]:
    """Name paths.cache where a file below it cannot be written.

    Args:
        cache: paths.cache.
        path: what is written.

    Raises:
        ConfigError: if the file system or its rights refuse.
    """
    try:
        yield
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise ConfigError(f"paths.cache={cache}: {_why(error, path)}") from None
    except OSError as error:
        if error.errno != EROFS:
            raise
        raise ConfigError(f"paths.cache={cache}: {_why(error, path)}") from None


def _why(error: OSError, path: Path) -> str:
    return f"{path} has to be made and cannot be ({error.strerror}); give a folder of your own as paths.cache"


def is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, which may have to be made itself: another user's cache is only read."""
    there = next((path for path in (folder.absolute(), *folder.absolute().parents) if path.exists()), Path("/"))
    effective = os.access in os.supports_effective_ids
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK, effective_ids=effective)


def recorded_hash(path: Path) -> Path:
    """The file beside another that holds its hash, as `sha256sum --check` reads it."""
    return path.with_name(f"{path.name}.sha256")


def record_hash(path: Path) -> None:
    """Write a file's hash beside it."""
    write_text(recorded_hash(path), f"{file_hash(path)}  {path.name}\n")


def unlike_its_hash(path: Path) -> str | None:
    """Why a file is not the one whose hash lies beside it, None where it is."""
    beside = recorded_hash(path)
    try:
        wanted = beside.read_text(encoding="utf-8", errors="replace").split(" ")[0]
    except FileNotFoundError:
        return f"{beside.name}, its hash, is gone"
    return None if file_hash(path) == wanted else "was changed or damaged since it was saved"
