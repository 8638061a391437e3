"""What generation is asked for and what it gives: prefixes with numbered samples, and their continuations."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class PrefixRequest:
    """Several continuations of one text; sample j has the id `{id}/{j}` and draws from (seed, that id) alone."""

    id: str
    prefix_ids: list[int]
    samples: int
    known: frozenset[int] = frozenset()
    """Samples that an earlier run has already drawn; they are left out."""

    def missing(self) -> Iterator[int]:
        """Numbers of the samples to draw."""
        return (sample for sample in range(self.samples) if sample not in self.known)


@dataclass(frozen=True)
class Continuation:
    """One sample."""

    token_ids: list[int]
    """As drawn; the last one is a stop token if finish is "stop". From a server that sends none, its text's tokens."""
    text: str
    """As it follows the prefix, leading space included, without the stop token and other special tokens."""
    finish: str
    """"stop" if the model ended its turn, "length" if max_new_tokens did."""


OnDone = Callable[[str, int, Continuation], None]
"""Called with (request id, sample, continuation) as soon as a sample is known."""


def sample_id(request_id: str, sample: int) -> str:
    """The id that a sample's randomness comes from."""
    return f"{request_id}/{sample}"
