"""Content hashes: ids of texts, settings and files, and what they tell of damage."""

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

SEAL = "sha256"
"""Key of a JSON record under which its own hash stands."""


def text_digest(*texts: str) -> bytes:
    """SHA-256 of texts, 32 bytes; their lengths keep ("ab", "c") and ("a", "bc") apart."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.digest()


def text_id(*texts: str, digits: int = 16) -> str:
    """Hash of texts as an id, in hexadecimal digits."""
    return text_digest(*texts).hex()[:digits]


def json_id(value: Any, *, digits: int = 64) -> str:
    """Hash of a JSON value as an id, in hexadecimal digits; the order of keys does not count."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:digits]


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON record with its own SHA-256, so that a reader sees damage that leaves it JSON."""
    plain = json.loads(json.dumps(record, allow_nan=False))
    return {**plain, SEAL: json_id(plain)}


def unsealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record without its hash; one that was written without a hash is taken as it is.

    Raises:
        ValueError: if the hash is another record's.
    """
    plain = {key: value for key, value in record.items() if key != SEAL}
    if SEAL in record and record[SEAL] != json_id(plain):
        raise ValueError("was changed or damaged since it was saved")
    return plain


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits; read once a process unless the file changes."""
    stat = path.stat()
    return _hash_of(str(path.absolute()), stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@functools.lru_cache(maxsize=1 << 16)
def _hash_of(path: str, inode: int, size: int, mtime_ns: int, ctime_ns: int) -> str:
    with open(path, "rb") as stream:  # a copied file may bring its old mtime, but not its ctime
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hashes_below(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of every file at or below some paths of a folder, by its path there.

    Hidden files and the README that PEFT writes into a folder do not count.
    """
    found = {}
    for name in names:
        start = folder / name
        files = [start] if start.is_file() else (path for path in start.rglob("*") if path.is_file())
        for path in files:
            inner = path.relative_to(start).parts
            if not any(part.startswith(".") for part in inner) and inner[-1:] != ("README.md",):
                found[path.relative_to(folder).as_posix()] = file_hash(path)
    return dict(sorted(found.items()))


def changed_files(folder: Path, files: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(name, what is wrong with it) of every file that is gone or not the one recorded."""
    for name, digest in files.items():
        path = folder / name
        if not path.is_file():
            yield name, "is gone"
        elif file_hash(path) != digest:
            yield name, "was changed or damaged since it was saved"
