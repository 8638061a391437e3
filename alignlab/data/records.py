"""The one record that every source is read into."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class RankedRow:
    """Two responses to one prompt, ranked by one or more objectives."""

    prompt: str
    responses: tuple[str, str]
    winner: dict[str, int]
    """Objective -> 0 or 1, the response that is better by it."""

    @property
    def id(self) -> str:
        """Hash of the texts; independent of file, order and labels."""
        return text_id(self.prompt, *self.responses)


@dataclass(frozen=True)
class Pair:
    """One row seen by one objective."""

    id: str
    prompt: str
    chosen: str
    rejected: str
    group: str
    """Hash of the prompt: pairs of one prompt share it."""
    objective: str


def pairs_by(rows: Sequence[RankedRow], objective: str) -> list[Pair]:
    """The rows as (chosen, rejected) by one objective, in the rows' order."""
    return [
        Pair(
            id=row.id,
            prompt=row.prompt,
            chosen=row.responses[row.winner[objective]],
            rejected=row.responses[1 - row.winner[objective]],
            group=text_id(row.prompt),
            objective=objective,
        )
        for row in rows
    ]


def text_id(*texts: str) -> str:
    """Short content hash; the lengths keep ("ab", "c") and ("a", "bc") apart."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]
