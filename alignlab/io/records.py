"""Long work as records with ids: appended when known, found again after a crash, one file in the end.

Beside FOLDER/NAME.jsonl, FOLDER/records/ holds while the work goes on:

    NAME.manifest.json   what the records are made for, and the ids that are expected; written before the first record
    NAME.partial.jsonl   the records known so far, in the order they came: JSON, a tab, CRC-32 of the JSON
    NAME.torn            what a crash left of a line; kept for the curious, never read
    NAME.lock            one writer at a time; the lock vanishes with its process

A record is handed to the operating system before `add` returns, so a killed process loses only what it had in flight;
the disk is made to follow every half second, so a power cut loses that much more.
"""

import hashlib
import json
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from alignlab.errors import ConfigError
from alignlab.io.atomic import remove_path, remove_unfinished, write_json, write_lines
from alignlab.io.hashes import file_hash

Record = dict[str, Any]
SYNC_SECONDS = 0.5
"""Longest time between two flushes to disk while records come in."""
_ANEW = "give force=true to begin anew, or another hydra.run.dir"


class UnusableRecords(ConfigError):
    """What lies there is damaged, or was begun for other records."""


class Records:
    """The records of one file, open for one writer; threads may share it. Use it in a `with` statement.

    Args:
        path: the final file, a .jsonl.
        expected_ids: the id of every record that will be made, each once.
        made_for: the settings that the records depend on, as JSON values; records made for others are never mixed in.

    Raises:
        ConfigError: if another process writes them, if they were made for something else, or `file:line: reason` if
            what lies there is damaged. A line that a crash cut short is moved aside, because its record is not known.
        ValueError: if an expected id comes twice.
    """

    def __init__(self, path: Path, expected_ids: Sequence[str], *, made_for: Mapping[str, Any] | None = None) -> None:
        self.path = path
        folder = path.parent / "records"
        folder.mkdir(parents=True, exist_ok=True)
        self._manifest = folder / f"{path.stem}.manifest.json"
        self._partial = folder / f"{path.stem}.partial.jsonl"
        self._torn = folder / f"{path.stem}.torn"
        self._expected = dict.fromkeys(expected_ids)
        if len(self._expected) < len(expected_ids):
            raise ValueError(f"{path.name}: expected ids come twice, e.g. {_first_repeated(expected_ids)}")
        self._positions: dict[str, tuple[int, int]] = {}
        """Id -> where its JSON starts in the file that holds it, and how many bytes it takes."""
        self._threads = threading.Lock()
        self._size = 0
        self._synced = time.monotonic()
        self._finished = False
        self._file: int | None = None
        self._lock = FileLock(folder / f"{path.stem}.lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ConfigError(f"{path}: another process is writing it; wait for it to end") from None
        remove_unfinished(folder, of=f"{path.stem}.")
        remove_unfinished(path.parent, of=f"{path.name}.")
        try:
            self._open(json.loads(json.dumps(dict(made_for or {}), allow_nan=False)))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Records":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Flushes to disk and lets the next writer in; what is known stays known."""
        if self._file is not None:
            os.fsync(self._file)
            os.close(self._file)
            self._file = None
        self._lock.release()

    @property
    def finished(self) -> bool:
        """Whether the final file is written."""
        return self._finished

    def missing(self) -> list[str]:
        """The ids that are expected and not yet known, in the order they were given."""
        return [key for key in self._expected if key not in self._positions]

    def add(self, record: Record) -> None:
        """Appends one record.

        Raises:
            ValueError: if its id is not expected, or known already; nothing is written.
        """
        key = record.get("id")
        data = _line(record)
        with self._threads:
            if key not in self._expected:
                raise ValueError(f"{self.path.name}: the id {key!r} is not expected")
            if key in self._positions:
                raise ValueError(f"{self.path.name}: the id {key!r} is known already")
            assert self._file is not None, "records are added while the file is open and not finished"
            whole = _with_check(data)
            self._append(self._file, whole)
            self._positions[key] = (self._size, len(data))
            self._size += len(whole)
            if time.monotonic() - self._synced > SYNC_SECONDS:
                os.fsync(self._file)
                self._synced = time.monotonic()

    def rows(self) -> Iterator[Record]:
        """The known records, sorted by id."""
        for line in self._lines():
            yield json.loads(line)

    def finish(self) -> None:
        """Writes the final file, sorted by id, whole or not at all: the same bytes in whatever order records came.

        Raises:
            ValueError: if records are missing.
        """
        if self._finished:
            return
        missing = self.missing()
        if missing:
            raise ValueError(f"{self.path.name}: {len(missing)} records are missing, e.g. {missing[0]}")
        digest = hashlib.sha256()
        for line in self._lines():
            digest.update(line + b"\n")
        manifest = json.loads(self._manifest.read_bytes())
        write_json(self._manifest, {**manifest, "sha256": digest.hexdigest()})
        write_lines(self.path, (line + b"\n" for line in self._lines()))
        assert self._file is not None
        os.close(self._file)
        self._file = None
        self._partial.unlink()
        self._read_final()

    def _open(self, made_for: dict[str, Any]) -> None:
        if self._manifest.exists():
            self._check_manifest(made_for)
        elif self.path.exists() or self._partial.exists():
            there = self.path if self.path.exists() else self._partial
            raise UnusableRecords(
                f"{there}: holds records, but {self._manifest.name} is gone, so nobody knows for what; {_ANEW}"
            )
        else:
            write_json(self._manifest, {"made_for": made_for, "ids": list(self._expected)})
        if self.path.exists():
            self._read_final()
            self._partial.unlink(missing_ok=True)  # a crash came between the two steps of finish()
            return
        self._cut_torn_line()
        self._read_partial()
        self._file = os.open(self._partial, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._size = os.fstat(self._file).st_size

    def _check_manifest(self, made_for: dict[str, Any]) -> None:
        try:
            manifest = json.loads(self._manifest.read_bytes())
            before, ids = manifest["made_for"], manifest["ids"]
        except (ValueError, KeyError, TypeError):
            raise UnusableRecords(f"{self._manifest}: is damaged; {_ANEW}") from None
        if before != made_for:
            differing = sorted(key for key in {*before, *made_for} if before.get(key) != made_for.get(key))
            raise UnusableRecords(
                f"{self.path}: was begun under other settings ({', '.join(differing)} differ); {_ANEW}"
            )
        if dict.fromkeys(ids) != self._expected:
            only_there, only_here = set(ids) - set(self._expected), set(self._expected) - set(ids)
            counts = f"{len(only_there)} of its ids are not expected now, {len(only_here)} expected ones are new"
            raise UnusableRecords(f"{self.path}: was begun for other records ({counts}); {_ANEW}")

    def _read_final(self) -> None:
        """Takes the final file's positions; it must be what was written, to the byte."""
        digest, start = hashlib.sha256(), 0
        with self.path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                digest.update(line)
                self._positions[self._id_of(line, f"{self.path}:{number}")] = (start, len(line) - 1)
                start += len(line)
        if digest.hexdigest() != json.loads(self._manifest.read_bytes()).get("sha256"):
            raise UnusableRecords(f"{self.path}: was changed after it was written; {_ANEW}")
        self._finished = True

    def _cut_torn_line(self) -> None:
        """Moves aside what follows the last line end."""
        if not self._partial.exists():
            return
        data = self._partial.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole == len(data):
            return
        with self._torn.open("ab") as torn:
            torn.write(data[whole:] + b"\n")
            torn.flush()
            os.fsync(torn.fileno())
        os.truncate(self._partial, whole)

    def _read_partial(self) -> None:
        if not self._partial.exists():
            return
        start = 0
        with self._partial.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                location = f"{self._partial}:{number}"
                data = _checked(line)
                if data is None:
                    raise UnusableRecords(
                        f"{location}: damaged, its checksum does not fit; take the line out, or {_ANEW}"
                    )
                key = self._id_of(data, location)
                if key in self._positions:
                    raise UnusableRecords(f"{location} id: {key} comes twice; take one line out, or {_ANEW}")
                self._positions[key] = (start, len(data))
                start += len(line)

    def _id_of(self, line: bytes, location: str) -> str:
        try:
            key = json.loads(line)["id"]
        except (ValueError, KeyError, TypeError):
            raise UnusableRecords(f"{location}: is no record with an id; {_ANEW}") from None
        if key not in self._expected:
            raise UnusableRecords(f"{location} id: {key} is not expected; {_ANEW}")
        return str(key)

    def _append(self, file: int, data: bytes) -> None:
        """Writes a line or, when the disk is full, nothing of it: the next one must not be glued to half a line."""
        try:
            while data:
                data = data[os.write(file, data) :]
        except OSError:
            os.ftruncate(file, self._size)
            raise

    def _lines(self) -> Iterator[bytes]:
        """The JSON of the known records, sorted by id."""
        positions = [self._positions[key] for key in sorted(self._positions)]
        with (self.path if self._finished else self._partial).open("rb") as stream:
            for start, length in positions:
                stream.seek(start)
                yield stream.read(length)


def is_finished(path: Path, *, made_for: Mapping[str, Any]) -> bool:
    """Whether a file of records is written to its end for these settings and undamaged, seen without a lock.

    The partial file that a writer left who was killed right then is removed.

    Args:
        path: the final file.
        made_for: the settings that the records depend on.
    """
    try:
        manifest = json.loads((path.parent / "records" / f"{path.stem}.manifest.json").read_bytes())
        same = manifest["made_for"] == json.loads(json.dumps(dict(made_for)))
        finished = same and bool(manifest.get("sha256") == file_hash(path))
        if finished:
            remove_path(path.parent / "records" / f"{path.stem}.partial.jsonl")
        return finished
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def renewable(
    path: Path, expected_ids: Sequence[str], *, made_for: Mapping[str, Any], say: Callable[[str], None]
) -> Records:
    """Records that are begun anew where what lies there is damaged; for what the cache keeps and can be made again.

    Args:
        path: the final file, a .jsonl, whose folder is made for these settings alone.
        expected_ids: the id of every record that will be made, each once.
        made_for: the settings that the records depend on.
        say: takes a line for the user.
    """
    try:
        return Records(path, expected_ids, made_for=made_for)
    except UnusableRecords as error:
        say(f"{str(error).removesuffix(_ANEW).removesuffix('; ')}; made again")
        path.unlink(missing_ok=True)
        for left in (path.parent / "records").glob(f"{path.stem}.*"):
            if left.suffix != ".lock":
                left.unlink()
        return Records(path, expected_ids, made_for=made_for)


def checked_line(record: Record) -> bytes:
    """A record as a line that shows damage: JSON, a tab, CRC-32 of the JSON."""
    return _with_check(_line(record))


def checked_lines(data: bytes) -> Iterator[Record | None]:
    """The records of such lines, None for each damaged one; what follows the last line end was cut, and is none."""
    for line in data[: data.rfind(b"\n") + 1].splitlines(keepends=True):
        whole = _checked(line)
        yield None if whole is None else json.loads(whole)


def _with_check(data: bytes) -> bytes:
    return data + b"\t%08x\n" % zlib.crc32(data)


def _checked(line: bytes) -> bytes | None:
    """The JSON of a line whose checksum fits."""
    data, _, check = line[:-1].rpartition(b"\t")
    return data if check == b"%08x" % zlib.crc32(data) else None


def _line(record: Record) -> bytes:
    """JSON in UTF-8; half a surrogate pair, which UTF-8 cannot hold, is escaped."""
    try:
        return json.dumps(record, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(record, allow_nan=False).encode()


def _first_repeated(ids: Sequence[str]) -> str:
    seen: set[str] = set()
    return next(key for key in ids if key in seen or seen.add(key))  # type: ignore[func-returns-value]
