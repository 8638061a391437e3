"""Content hashes: ids of texts, settings and files."""

import hashlib
import json
from pathlib import Path
from typing import Any


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


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
