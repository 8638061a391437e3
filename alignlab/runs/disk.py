"""A disk that is full, in one line: whoever says so, and however deep in the chain of errors it lies."""

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SAYS = ("No space left", "os error 28", "File too large", "os error 27", "quota exceeded", "inline_container")
"""What safetensors, Arrow and torch say, which keep no error number; the last is torch's writer of archives."""


def is_full(error: BaseException) -> bool:
    """Whether an error comes from a disk, a quota or a file size limit that leaves no room."""
    return any(
        (isinstance(one, OSError) and one.errno in _FULL) or any(text in str(one) for text in _SAYS)
        for one in _chain(error)
    )


def full_line(folder: Path, error: BaseException) -> str:
    """What to say and do."""
    reason = next((one.strerror for one in _chain(error) if isinstance(one, OSError) and one.strerror), "write failed")
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free >> 20
    rest = "what was saved before is whole: make room and rerun the same command to resume"
    return f"no room to write ({reason}; {free:,} MiB free); {rest}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
