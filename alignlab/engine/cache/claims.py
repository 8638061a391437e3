"""Which rows of a table a process is computing right now, so that no other one computes them too.

A claim is a file of row ids and a lock beside it that its process holds. The lock ends with the process, however that
ends, and the rows are free again.
"""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from alignlab.engine.cache.table import ID, Ids


@dataclass(frozen=True)
class Claim:
    """Rows that one process is computing."""

    file: Path
    ids: Ids
    lock: FileLock

    def wait(self) -> None:
        """Returns when the process that holds the claim has let it go, or has ended."""
        with self.lock:
            self._lock_file.unlink(missing_ok=True)

    def release(self) -> None:
        """Lets the rows go; by its holder, once they are in the table or will not be."""
        self.file.unlink(missing_ok=True)
        self.lock.release()
        self._lock_file.unlink(missing_ok=True)

    @property
    def _lock_file(self) -> Path:
        return Path(self.lock.lock_file)


def make_claim(table: Path, ids: Ids) -> Claim:
    """Claims rows for this process. Needs the table's lock."""
    file = table.parent / f"{table.stem}-{uuid.uuid4().hex[:12]}.claim"
    claim = Claim(file, ids, FileLock(_lock_of(file)))
    claim.lock.acquire()
    file.write_bytes(ids.tobytes())
    return claim


def others_claims(table: Path, own: Sequence[Claim]) -> Iterator[Claim]:
    """The claims of other processes that are alive; those of dead ones are swept away. Needs the table's lock."""
    for file in set(table.parent.glob(f"{table.stem}-*.claim")) - {claim.file for claim in own}:
        lock = FileLock(_lock_of(file))
        try:
            with lock.acquire(timeout=0):
                file.unlink(missing_ok=True)
            _lock_of(file).unlink(missing_ok=True)
        except Timeout:
            try:
                yield Claim(file, np.frombuffer(file.read_bytes(), dtype=ID), lock)
            except FileNotFoundError:  # let go since it was listed
                continue


def _lock_of(file: Path) -> Path:
    return file.with_suffix(".claim.lock")
