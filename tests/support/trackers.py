"""Settings of a tracker with keys planted where one could leak."""

from alignlab.config.recipe import TrackerSettings

KEYS = {name: f"planted-{name}-0123456789" for name in ("environment", "command", "user", "query")}


def settings(name, kind="wandb_offline", adapter_mb=100.0):
    """A tracker's settings; its configuration holds an address with keys."""
    url = f"http://user:{KEYS['user']}@localhost:8000/v1?key={KEYS['query']}"
    config = {"w": 0.5, "judge": {"base_url": url, "names": ["a"]}}
    return TrackerSettings(kind, "planted-project", None, ["planted-tag"], "planted-group", name, config, adapter_mb)


BLOCK = 2**15
"""Bytes of a block of wandb's log."""


def wandb_records(file):
    """All records of wandb's log, put together: its blocks of 32 KiB part any word.

    LevelDB's log format: after a head of 7 bytes, parts with checksum (4 bytes), length (2) and type (1).
    """
    data, at, found = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = BLOCK - at % BLOCK
        if left < 7:
            at += left
            continue
        length = int.from_bytes(data[at + 4 : at + 6], "little")
        found += data[at + 7 : at + 7 + length]
        at += 7 + length
    return found
