"""From requests to prefixes: the tokens that a continuation is sampled from, and counts of what is left out."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from alignlab.course_correction.phrases import Phrase, affirmative_prefix, paper_prefix
from alignlab.data.records import HarmRequest, Turn, prompt_text
from alignlab.io.hashes import text_id
from alignlab.models.prefill import cut_answer, open_turn
from alignlab.models.prompts import PromptEncoder

Make = Callable[[HarmRequest, "Prefixes"], "list[Prefix]"]
PLAIN = 0
"""k of a plain request: nothing is prefilled."""


@dataclass(frozen=True)
class Prefix:
    """One beginning of a response, and the samples that are drawn from it."""

    request: HarmRequest
    k: int
    phrase: Phrase | None
    """The affirmative prefix; None for a plain request."""
    ids: list[int]
    """Prompt, open turn and beginning, in tokens."""
    text: str
    """Affirmative prefix and beginning, as text."""
    samples: int
    first_sample: int = 0
    """Number of the first of them."""

    @property
    def id(self) -> str:
        """Of the request, the length and, where each sample has a prefix of its own, the sample."""
        return f"{self.request.id}/{self.k}" + (f"/{self.first_sample}" if self.first_sample else "")

    def sample_id(self, sample: int) -> str:
        """The record's id of the continuation with this number."""
        return text_id(self.request.id, str(self.k), str(sample))

    @property
    def sample_ids(self) -> list[str]:
        """Of all its continuations."""
        return [self.sample_id(self.first_sample + number) for number in range(self.samples)]


@dataclass
class Prefixes:
    """All prefixes of a run."""

    kept: list[Prefix] = field(default_factory=list)
    too_short: Counter[int] = field(default_factory=Counter)
    """k -> responses of no more than k tokens: the model would have nothing left to say."""
    whole: Counter[int] = field(default_factory=Counter)
    """k -> responses that are prefilled whole."""
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

    def line(self, what: str) -> str:
        """The same for the terminal; `what` names the prefixes."""
        parts = {
            "responses are too short": self.too_short.total(),
            "leave no room in the context": self.too_long.total(),
            "requests the chat template refuses": self.refused,
            "responses are prefilled whole": self.whole.total(),
        }
        noted = "; ".join(f"{count} {text}" for text, count in parts.items() if count)
        return f"{len(self.kept)} {what}{f' ({noted})' if noted else ''}"


@dataclass(frozen=True)
class PrefixRecipe:
    """How prefixes are made."""

    ks: Sequence[int]
    """Lengths: tokens of the harmful response (strict), or words with the affirmative prefix's (words, paper)."""
    profile: str
    """strict, words or paper; see conf/algorithm/course_correction.yaml."""
    turn: str
    """How the turn goes on after the prefix, one of models.prefill.TURNS; paper has its own."""
    is_toy: bool
    samples: int
    """Continuations of each request at each k."""
    max_prefix_tokens: int | None = None
    """Longest prefix; None for no limit."""


def build_prefixes(requests: Iterable[HarmRequest], encoder: PromptEncoder, recipe: PrefixRecipe) -> Prefixes:
    """The prefixes of every request at every k.

    Args:
        requests: requests with the responses that are begun.
        encoder: tokenizer and template of the policy.
        recipe: how.
    """
    make = {"strict": _strict, "words": _words, "paper": _paper}[recipe.profile]
    return _collect(requests, lambda request, built: list(make(request, encoder, recipe, built)), recipe)


def plain_prefixes(requests: Iterable[HarmRequest], encoder: PromptEncoder, recipe: PrefixRecipe) -> Prefixes:
    """The plain prompts of the requests, each once: what the policy says of its own accord, k=0.

    Args:
        requests: those of one prompt count as one.
        encoder: tokenizer and template of the policy.
        recipe: only `samples` and `max_prefix_tokens` matter.
    """
    once = {request.group: request for request in reversed(list(requests))}

    def make(request: HarmRequest, _: Prefixes) -> list[Prefix]:
        return [Prefix(request, PLAIN, None, encoder.prompt_ids(request.prompt), "", recipe.samples)]

    return _collect([once[group] for group in sorted(once)], make, recipe)


def _collect(requests: Iterable[HarmRequest], make: Make, recipe: PrefixRecipe) -> Prefixes:
    built, limit = Prefixes(), recipe.max_prefix_tokens
    for request in requests:
        try:
            found = make(request, built)
        except ValueError:  # its message would quote the template's view of the text
            built.refused += 1
            continue
        for prefix in found:
            if limit is not None and len(prefix.ids) > limit:
                built.too_long[prefix.k] += 1
            else:
                built.kept.append(prefix)
    return built


def _strict(request: HarmRequest, encoder: PromptEncoder, recipe: PrefixRecipe, built: Prefixes) -> Iterator[Prefix]:
    """K tokens of the harmful response after the affirmative prefix."""
    phrase = affirmative_prefix(request.id, request.prompt, part="evaluation", is_toy=recipe.is_toy)
    cut = cut_answer(encoder, request.prompt, opener=phrase.text, answer=request.harmful_response)
    for k in recipe.ks:
        if k >= len(cut.answer_ids):
            built.too_short[k] += 1
            continue
        text = str(encoder.tokenizer.decode([*cut.opener_ids, *cut.answer_ids[:k]]))
        closed = recipe.turn != "continue"
        ids = open_turn(encoder, request.prompt, text, turn=recipe.turn) if closed else cut.at(k)
        yield Prefix(request, k, phrase, ids, text, recipe.samples)


def _words(request: HarmRequest, encoder: PromptEncoder, recipe: PrefixRecipe, built: Prefixes) -> Iterator[Prefix]:
    """The first k words of the affirmative prefix and the harmful response, in a turn of our own."""
    phrase = affirmative_prefix(request.id, request.prompt, part="evaluation", is_toy=recipe.is_toy)
    for k in recipe.ks:
        text, is_whole = first_words(f"{phrase.text} {request.harmful_response}", k)
        built.whole[k] += is_whole
        yield Prefix(
            request, k, phrase, open_turn(encoder, request.prompt, text, turn=recipe.turn), text, recipe.samples
        )


def _paper(request: HarmRequest, encoder: PromptEncoder, recipe: PrefixRecipe, built: Prefixes) -> Iterator[Prefix]:
    """As the reference code: an affirmative prefix for every sampled path, and its rendering of the turn."""
    for k in recipe.ks:
        built.whole[k] += first_words(f"{paper_prefix(request.id, k, 0).text} {request.harmful_response}", k)[1]
        for sample in range(recipe.samples):
            phrase = paper_prefix(request.id, k, sample)
            text, _ = first_words(f"{phrase.text} {request.harmful_response}", k)
            yield Prefix(request, k, phrase, paper_ids(encoder, prompt_text(request.prompt), text), text, 1, sample)


def first_words(text: str, k: int) -> tuple[str, bool]:
    """The first k words with a space between them, or the text as it is if it has no more; whether that is so."""
    words = text.split()
    return (text, True) if len(words) <= k else (" ".join(words[:k]), False)


def paper_ids(encoder: PromptEncoder, prompt: str, prefix: str) -> list[int]:
    """The reference code's tokens of a prefilled turn, its oddities included.

    The chat template renders the whole turn and a generation prompt, `</s>` is removed, and the tokenizer reads the
    text with its own special tokens: a template that writes BOS thus gets a second one, Llama-2's turn stays open with
    a space at its end, Llama-3's and Qwen's is closed and its header repeated, and a special token's name in the data
    becomes that token. For `profile=paper` alone; `models.prefill` is free of all of this.

    Args:
        encoder: with the tokenizer's own chat template.
        prompt: the request.
        prefix: affirmative prefix and beginning of the response.
    """
    assert encoder.template is None, "checked before a model is loaded"
    text = encoder.literal((Turn("user", prompt), Turn("assistant", prefix)))
    return list(encoder.tokenizer(text.replace("</s>", ""))["input_ids"])
