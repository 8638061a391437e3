"""What a command left, to compare a killed one with an unbroken one: all but times and accounts of one attempt."""

import hashlib
import json
import os

import pyarrow.parquet as pq

from alignlab.io.atomic import UNFINISHED
from alignlab.io.hashes import SEAL

OF_AN_ATTEMPT = (
    *("seconds", "train_runtime", "train_loss", "train_samples_per_second", "train_steps_per_second", SEAL),
    *(
        "cache",
        "sampled",
        "scored",
        "asked",
        "reused",
        "calls",
        "calls_again",
        "models",
        "tokens_in",
        "tokens_out",
        "usd",
        "spent",
    ),
)
"""Keys of JSON objects: times, the mean loss since a resume, and what this attempt computed, read or asked."""
LEFT_OUT = (".lock", ".claim", ".log")
"""Suffixes of files that end with their process: a claim on cached rows is swept by the next process that computes."""


def left(root):
    """Path -> content of every file and folder below runs/ and cache/; the index of runs holds times."""
    paths = [path for name in ("runs", "cache") for path in (root / name).rglob("*")]
    kept = [path for path in paths if path.suffix not in LEFT_OUT and path.name not in (".lock", "progress.json")]
    kept = [path for path in kept if path != root / "runs" / "index.html"]
    answers = [path for path in kept if "verdicts" in path.parts and path.suffix == ".jsonl" and "cache" in path.parts]
    found = {str(path.relative_to(root)): _content(path) for path in kept if path not in answers}
    for path in answers:  # one file of a random name for each process that asked
        found.setdefault(f"{path.parent.relative_to(root)}/*", set()).update(path.read_text().splitlines())
    return found


def make_old(root):
    """Let a minute pass for what a killed process left unfinished: a living one may be at work on a page that long."""
    for path in root.rglob(".*"):
        if UNFINISHED.fullmatch(path.name):
            os.utime(path, (1, 1))


def differences(own, whole):
    """What differs, a line each."""
    missing = [f"{name}: is missing" for name in whole if name not in own]
    more = [f"{name}: is left behind" for name in own if name not in whole]
    both = [name for name in whole if name in own and own[name] != whole[name]]
    return [*missing, *more, *(f"{name}: {part}" for name in both for part in _parts(own[name], whole[name]))]


def _content(path):
    if path.is_dir():
        return None
    if path.suffix == ".parquet":  # its writer stamps it with the time
        return pq.read_table(path).to_pydict()
    if path.suffix == ".json":
        return _lasting(json.loads(path.read_text()))
    if path.name == "metrics.jsonl":
        return [_lasting(json.loads(line)) for line in path.read_text().splitlines()]
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _lasting(value):
    if isinstance(value, dict):
        return {key: _lasting(one) for key, one in value.items() if key not in OF_AN_ATTEMPT}
    return [_lasting(one) for one in value] if isinstance(value, list) else value


def _parts(one, other, at=""):
    if isinstance(one, dict) and isinstance(other, dict):
        for key in {**one, **other}:
            if one.get(key) != other.get(key):
                yield from _parts(one.get(key), other.get(key), f"{at}.{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, (first, second) in enumerate(zip(one, other, strict=True)):
            if first != second:
                yield from _parts(first, second, f"{at}[{index}]")
    else:
        yield f"{at} {str(one)[:80]} instead of {str(other)[:80]}"
