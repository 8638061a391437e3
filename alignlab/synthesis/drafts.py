"""The responses of a ranked set before they are written: what each begins with, and whether the policy goes on.

A harmful request's set is, from best to worst: a safe response, four corrected ones (cut early first), the harmful
response. A harmless one's is: the policy's own answer, four that correct what was no mistake (cut late first), a
refusal. One affirmative prefix begins the corrected responses of a set and the harmful one, so that it cancels in their
differences; the best response has none.
"""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from alignlab.course_correction.phrases import Phrase, affirmative_prefix, correction_phrase, refusal_phrase
from alignlab.data.rankings import BENIGN, HARMFUL
from alignlab.data.records import HarmRequest
from alignlab.data.worlds import toy
from alignlab.models.prefill import cut_answer, open_turn
from alignlab.models.prompts import PromptEncoder
from alignlab.synthesis.cuts import Cut, cut_response

SAFE, CORRECTED, WHOLE, HELPFUL, REFUSED = "safe", "corrected", "harmful", "helpful", "refused"
"""What a response of a set is."""


@dataclass(frozen=True)
class Draft:
    """One response of a set."""

    request: HarmRequest
    kind: str
    """harmful or benign."""
    rank: int
    """Rank in its set; 0 is the best."""
    role: str
    start: str
    """What the policy goes on from, or the whole response where nothing is to be written."""
    ids: tuple[int, ...] = ()
    """The open turn after the start, in tokens; empty where nothing is to be written."""
    affirmative_prefix: Phrase | None = None
    cut: Cut | None = None
    correction_phrase: Phrase | None = None
    refusal: Phrase | None = None

    @property
    def begun(self) -> str:
        """What complies at first: the affirmative prefix and the cut response."""
        return " ".join(part.text for part in (self.affirmative_prefix, self.cut) if part is not None)

    @property
    def correction_start(self) -> int | None:
        """Characters before what is to be learnt: a correction, or all of a best response; None where nothing is."""
        if self.role in (SAFE, HELPFUL):
            return 0
        return len(self.begun) + 1 if self.role == CORRECTED and self.kind == HARMFUL else None

    @property
    def is_sampled(self) -> bool:
        """Whether it is drawn at temperature 1: likely or not, so that its likelihood holds the policy where it was."""
        return self.role == HELPFUL

    @property
    def id(self) -> str:
        """Of the request and the rank; a set's ids follow each other in order."""
        return f"{self.request.id}/{self.rank}"


@dataclass(frozen=True)
class Recipe:
    """How sets are made."""

    at_clauses: bool
    safe: str
    """refusal, policy or data."""
    is_toy: bool
    max_prefix_tokens: int | None
    """Longest start; None for no limit."""


def draft_sets(
    requests: Iterable[HarmRequest], encoder: PromptEncoder, *, kind: str, recipe: Recipe, left_out: Counter[str]
) -> Iterator[list[Draft]]:
    """Draft the sets of all requests; those that cannot be made are counted, with the reason.

    Args:
        requests: of one kind.
        encoder: tokenizer and template of the policy.
        kind: harmful or benign.
        recipe: how.
        left_out: reason -> requests, added to.
    """
    for request in requests:
        try:
            drafts = _draft_set(request, encoder, kind, recipe)
        except ValueError:  # its message would quote the template's view of the text
            left_out["refused by the chat template"] += 1
            continue
        if isinstance(drafts, str):
            left_out[drafts] += 1
        elif (
            recipe.max_prefix_tokens is not None and max(len(draft.ids) for draft in drafts) > recipe.max_prefix_tokens
        ):
            left_out["no room in the context"] += 1
        else:
            yield drafts


def _draft_set(request: HarmRequest, encoder: PromptEncoder, kind: str, recipe: Recipe) -> list[Draft] | str:
    """The set of one request, or why there is none."""
    if kind == HARMFUL and recipe.safe == "data" and not (request.safe_response or "").strip():
        return "no safe response in the data"
    phrase = affirmative_prefix(request.id, request.prompt, part="training", is_toy=recipe.is_toy)
    answer = cut_answer(encoder, request.prompt, opener=phrase.text, answer=request.harmful_response)
    cuts = cut_response(encoder, answer, at_clauses=recipe.at_clauses, is_toy=recipe.is_toy)
    if cuts is None:
        return "too short for four cuts"
    make = _harmful_set if kind == HARMFUL else _benign_set
    return make(request, encoder, recipe, phrase, cuts)


def _harmful_set(
    request: HarmRequest, encoder: PromptEncoder, recipe: Recipe, phrase: Phrase, cuts: Sequence[Cut]
) -> list[Draft]:
    corrected = [_corrected(request, encoder, recipe, phrase, cut, HARMFUL, rank) for rank, cut in enumerate(cuts, 1)]
    whole = f"{phrase.text} {request.harmful_response.strip()}"
    worst = Draft(request, HARMFUL, len(cuts) + 1, WHOLE, whole, affirmative_prefix=phrase)
    return [_safe(request, encoder, recipe), *corrected, worst]


def _safe(request: HarmRequest, encoder: PromptEncoder, recipe: Recipe) -> Draft:
    # The toy's refusals are its data, drawn as its demonstrations are: what its small policy writes on after one phrase
    # is the same for every request, and learning that by heart leaves its other refusals broken.
    if recipe.safe == "data" or (recipe.is_toy and recipe.safe == "refusal"):
        assert request.safe_response is not None
        return Draft(request, HARMFUL, 0, SAFE, request.safe_response.strip())
    if recipe.safe == "policy":
        return Draft(request, HARMFUL, 0, SAFE, "", tuple(open_turn(encoder, request.prompt)))
    return _refusal(request, encoder, recipe, HARMFUL, 0, SAFE)


def _refusal(request: HarmRequest, encoder: PromptEncoder, recipe: Recipe, kind: str, rank: int, role: str) -> Draft:
    phrase = refusal_phrase(request.id, is_toy=recipe.is_toy)
    ids = tuple(open_turn(encoder, request.prompt, phrase.text))
    return Draft(request, kind, rank, role, phrase.text, ids, refusal=phrase)


def _benign_set(
    request: HarmRequest, encoder: PromptEncoder, recipe: Recipe, phrase: Phrase, cuts: Sequence[Cut]
) -> list[Draft]:
    helpful = Draft(request, BENIGN, 0, HELPFUL, "", tuple(open_turn(encoder, request.prompt)))
    corrected = [
        _corrected(request, encoder, recipe, phrase, cut, BENIGN, rank) for rank, cut in enumerate(reversed(cuts), 1)
    ]
    return [helpful, *corrected, _refusal(request, encoder, recipe, BENIGN, len(cuts) + 1, REFUSED)]


def _corrected(
    request: HarmRequest, encoder: PromptEncoder, recipe: Recipe, phrase: Phrase, cut: Cut, kind: str, rank: int
) -> Draft:
    correction = correction_phrase(f"{request.id}/{rank}", part="training", is_toy=recipe.is_toy)
    if recipe.is_toy and kind == HARMFUL:
        # Its grammar knows no correction, so what its policy would write on is noise: a refusal of the grammar instead.
        said = toy.refusal(str(request.prompt), random.Random(f"{request.id}/{rank}"), first=correction.text)
        return Draft(request, kind, rank, CORRECTED, f"{phrase.text} {cut.text} {said}", (), phrase, cut, correction)
    start = f"{phrase.text} {cut.text} {correction.text}"
    ids = tuple(open_turn(encoder, request.prompt, start))
    return Draft(request, kind, rank, CORRECTED, start, ids, phrase, cut, correction)
