"""Hidden states of responses, kept by content: one folder a scorer, one safetensors file a pass over what was missing.

A file is written whole and holds its own checksum; a damaged one is said, and its rows are computed anew.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from alignlab.engine.cache.table import ID
from alignlab.io.atomic import write_lines
from alignlab.io.kept import is_writable
from alignlab.models.prompts import Encoded
from alignlab.runs.progress import say

ROWS_A_FILE = 256
"""Rows that are computed between two writes: what a killed run loses at most."""

Compute = Callable[[list[Encoded]], Tensor]
"""Vectors of rows, float32, shape (n, D)."""


class StateCache:
    """Vectors of responses under a root folder, shared by all runs.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.computed = 0
        """Rows that this object computed rather than found."""

    def states(self, scorer: str, rows: Sequence[Encoded], compute: Compute) -> Tensor:
        """One float32 vector a row, shape (n, D), computed only where no run has computed it.

        Args:
            scorer: identity of what computes them: weights, precision, layers, pooling.
            rows: prompts and responses as tokens.
            compute: the vectors of rows that are missing.
        """
        folder = self.root / hashlib.sha256(scorer.encode()).hexdigest()[:16]
        wanted = {row.key: row for row in rows}
        known: dict[bytes, Tensor] = {}
        for file in sorted(folder.glob("*.safetensors")):
            known |= dict(_read(file, scorer, set(wanted)))
        missing = [row for key, row in wanted.items() if key not in known]
        keeps = is_writable(self.root)
        if missing and not keeps:
            say(f"{self.root}: cannot be written; the hidden states of {len(missing):,} rows are not kept")
        missing.sort(key=lambda row: row.prompt_ids + row.response_ids)  # shared prefixes meet in a file
        for start in range(0, len(missing), ROWS_A_FILE):
            part = missing[start : start + ROWS_A_FILE]
            states = compute(part).float().contiguous()
            if keeps:
                _write(folder, scorer, [row.key for row in part], states)
            known |= {row.key: vector for row, vector in zip(part, states, strict=True)}
            self.computed += len(part)
        return torch.stack([known[row.key] for row in rows])


def _write(folder: Path, scorer: str, keys: list[bytes], states: Tensor) -> None:
    ids = torch.from_numpy(np.frombuffer(b"".join(keys), np.uint8).copy()).reshape(len(keys), ID.itemsize)
    name = hashlib.sha256(b"".join(sorted(keys))).hexdigest()[:16]
    content = save({"ids": ids, "states": states}, {"scorer": scorer, "sha256": _checksum(ids, states)})
    write_lines(folder / f"{name}.safetensors", [content])


def _read(file: Path, scorer: str, wanted: set[bytes]) -> Iterator[tuple[bytes, Tensor]]:
    """(row's key, vector) of the wanted rows in a file; nothing of a damaged one."""
    try:
        with safe_open(file, "pt") as tensors:
            metadata = tensors.metadata() or {}
            ids, states = tensors.get_tensor("ids"), tensors.get_tensor("states")
    except (SafetensorError, OSError) as error:
        say(f"{file}: {str(error).splitlines()[0]}; computed anew")
        return
    if metadata != {"scorer": scorer, "sha256": _checksum(ids, states)}:
        say(f"{file}: damaged, or another scorer's; computed anew")
        return
    for key_bytes, vector in zip(ids.numpy(), states, strict=True):
        if (key := key_bytes.tobytes()) in wanted:
            yield key, vector.clone()


def _checksum(ids: Tensor, states: Tensor) -> str:
    return hashlib.sha256(ids.numpy().tobytes() + states.numpy().tobytes()).hexdigest()
