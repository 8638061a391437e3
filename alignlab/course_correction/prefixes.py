"""From requests to the prefixes that are put into the model's mouth, with what is left out and why."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from alignlab.course_correction.openers import Phrase, opener_for
from alignlab.data.records import HarmRequest
from alignlab.io.hashes import text_id
from alignlab.models.prefill import cut_answer, open_turn
from alignlab.models.prompts import PromptEncoder


@dataclass(frozen=True)
class Prefix:
    """One beginning of one answer."""

    request: HarmRequest
    k: int
    opener: Phrase
    ids: list[int]
    """The whole prompt, open turn and beginning, in tokens."""
    text: str
    """Opener and beginning, as a reader sees them."""

    @property
    def id(self) -> str:
        """Of the request and the length."""
        return f"{self.request.id}/{self.k}"

    def sample_id(self, sample: int) -> str:
        """The record's id of one continuation."""
        return text_id(self.request.id, str(self.k), str(sample))


@dataclass
class Prefixes:
    """All beginnings of a run."""

    kept: list[Prefix] = field(default_factory=list)
    too_short: Counter[int] = field(default_factory=Counter)
    """k -> answers of no more than k tokens, which would be put in whole: nothing is left to go on with."""
    whole: Counter[int] = field(default_factory=Counter)
    """k -> answers that are put in whole, as the paper's profile does."""
    too_long: Counter[int] = field(default_factory=Counter)
    """k -> prefixes that leave no room in the model's context."""
    refused: int = 0
    """Requests that the chat template does not take."""

    def counts(self) -> dict[str, object]:
        """For result.json."""
        return {
            "prefixes": len(self.kept),
            "requests": len({prefix.request.id for prefix in self.kept}),
            **{name: dict(sorted(getattr(self, name).items())) for name in ("too_short", "whole", "too_long")},
            "refused_by_template": self.refused,
        }


def build_prefixes(
    requests: Iterable[HarmRequest],
    encoder: PromptEncoder,
    *,
    ks: Sequence[int],
    profile: str,
    turn: str,
    is_toy: bool,
    room: int | None = None,
) -> Prefixes:
    """The prefixes of every request at every k.

    Args:
        requests: requests with the answers that are begun.
        encoder: the subject's tokenizer and template.
        ks: lengths, in the subject's tokens after the opener (strict) or in words with the opener (paper).
        profile: strict or paper.
        turn: what follows the prefix, see models.prefill.TURNS.
        is_toy: whether the requests are the toy's, which has openers in its own words.
        room: longest prefix in tokens; None for no limit.
    """
    built = Prefixes()
    for request in requests:
        opener = opener_for(request.id, request.prompt, part="evaluation", is_toy=is_toy)
        try:
            found = list(_of_request(request, opener, encoder, ks, profile, turn, built))
        except ValueError:  # its message would quote the template's view of the text
            built.refused += 1
            continue
        for prefix in found:
            if room is not None and len(prefix.ids) > room:
                built.too_long[prefix.k] += 1
            else:
                built.kept.append(prefix)
    return built


def _of_request(
    request: HarmRequest,
    opener: Phrase,
    encoder: PromptEncoder,
    ks: Sequence[int],
    profile: str,
    turn: str,
    built: Prefixes,
) -> Iterable[Prefix]:
    if profile == "paper":
        words = f"{opener.text} {request.harmful_response}".split()
        for k in ks:
            built.whole[k] += len(words) <= k
            text = " ".join(words[:k])
            yield Prefix(request, k, opener, open_turn(encoder, request.prompt, text, turn=turn), text)
        return
    cut = cut_answer(encoder, request.prompt, opener=opener.text, answer=request.harmful_response)
    for k in ks:
        if k >= len(cut.answer_ids):
            built.too_short[k] += 1
            continue
        text = str(encoder.tokenizer.decode([*cut.opener_ids, *cut.answer_ids[:k]]))
        ids = cut.at(k) if turn == "continue" else open_turn(encoder, request.prompt, text, turn=turn)
        yield Prefix(request, k, opener, ids, text)
