"""The one record that every source is read into, and the pairs that an objective makes of it."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from alignlab.io.hashes import text_id


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: str
    """system, user or assistant."""
    content: str


Prompt = str | tuple[Turn, ...]
"""A plain request, or a conversation that ends in a user turn."""


class CutText(str):
    """A response that a limit ended, not the policy: nothing appends an end to it, and no whole response equals it."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CutText) and str.__eq__(self, other)

    __hash__ = str.__hash__


def as_said(text: str, finish: object) -> str:
    """A sampled response as rewards and training take it: a `CutText` if its `finish` is "length"."""
    return CutText(text) if finish == "length" and text else text  # without a word it has to hold an end


def as_prompt(turns: Sequence[Turn]) -> Prompt:
    """The prompt that these turns make: a lone request is plain text, so that both forms of it are one prompt."""
    if len(turns) == 1 and turns[0].role == "user":
        return turns[0].content
    return tuple(turns)


def prompt_text(prompt: Prompt) -> str:
    """The prompt as one text to read or to learn words from; not what a model is given."""
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(f"{turn.role}: {turn.content}" for turn in prompt)


def prompt_as_json(prompt: Prompt) -> str | list[dict[str, str]]:
    """The prompt as a file or a request holds it: the text, or messages with role and content."""
    return prompt if isinstance(prompt, str) else messages_of(prompt)


def messages_of(prompt: Prompt) -> list[dict[str, str]]:
    """The prompt as messages with role and content, as chat templates take them."""
    turns = (Turn("user", prompt),) if isinstance(prompt, str) else prompt
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def fill_template(template: str, turns: Sequence[Turn]) -> str:
    """The turns by a string template: it is filled once a request, and an earlier answer stands where a response would.

    `USER: {raw_prompt} ASSISTANT:` makes `USER: one ASSISTANT:two USER: three ASSISTANT:` of two requests. Between an
    answer and the next request is what the template begins with, else a space, or an empty line if the template has
    several lines. What a system turn says comes first.

    Args:
        template: text with {raw_prompt}, and {response} where an answer is followed by more; else answers end it.
        turns: of a prompt, with or without the answer to it.
    """
    before, _, after = template.partition("{response}")
    gap = "\n\n" if "\n" in template else " "
    text = ""
    for turn in turns:
        if turn.role == "user":
            between = gap if text and not (template[:1].isspace() or text[-1].isspace()) else ""
            text += between + before.replace("{raw_prompt}", turn.content)
        else:
            text += turn.content + (after if turn.role == "assistant" else gap)
    return text


@dataclass(frozen=True, slots=True)
class RankedRow:
    """Two or more responses to one prompt, scored by one or more objectives."""

    prompt: Prompt
    responses: tuple[str, ...]
    scores: dict[str, tuple[float | None, ...]]
    """Objective -> one score a response, higher is better, None where it says nothing; equal scores make no pair."""
    location: str = ""
    """File and line, `train.jsonl:5`."""
    split: str | None = None
    """The split that its file belongs to; None where a hash of the prompt decides."""
    correction_starts: tuple[int | None, ...] = ()
    """Characters of each response before its correction, None for one that corrects nothing; empty where the data does
    not say."""
    categories: tuple[str, ...] = ()
    """What the data say that the request or a response is about, such as kinds of harm; empty where they do not say."""
    safe: tuple[bool | None, ...] = ()
    """Whether each response is safe, judged on its own; None where the data do not say, empty where they never do."""
    only: frozenset[tuple[int, int]] | None = None
    """The pairs of responses that are used, as indices in ascending order; None for all."""

    @property
    def id(self) -> str:
        """Hash of the texts; independent of file, order and labels."""
        return text_id(*_parts(self.prompt), *self.responses)

    @property
    def group(self) -> str:
        """Hash of the prompt: rows and pairs of one prompt share it."""
        return group_of(self.prompt)

    @property
    def winner(self) -> dict[str, int]:
        """Objective -> 0 or 1, the better of two responses; without the objectives that name none."""
        assert len(self.responses) == 2
        return {name: pair[0] for name in self.scores for pair in ranked_pairs(self, name)}


@dataclass(frozen=True, slots=True)
class Pair:
    """Two responses of a row, seen by one objective."""

    id: str
    """Of the row and the two responses, whichever is chosen: objectives that rank them differently share it."""
    prompt: Prompt
    chosen: str
    rejected: str
    group: str
    """Hash of the prompt: pairs of one prompt share it."""
    objective: str
    set: str = ""
    """The row that it is from: pairs of one row share their responses. Empty: it has none in common with others."""
    likelihood_start: int | None = 0
    """Characters of the chosen response before the part whose likelihood a loss may count; None: it counts none."""
    location: str = ""
    """File and line of the row."""


def ranked_pairs(row: RankedRow, objective: str) -> Iterator[tuple[int, int]]:
    """All (better, worse) indices among a row's responses by one objective, in a fixed order."""
    scores = row.scores.get(objective, ())
    for better, high in enumerate(scores):
        for worse, low in enumerate(scores):
            if high is not None and low is not None and high > low and is_used(row, better, worse):
                yield better, worse


def is_used(row: RankedRow, first: int, second: int) -> bool:
    """Whether a pair of a row's responses is used.

    Args:
        row: the row.
        first: index of a response.
        second: index of another.
    """
    return row.only is None or (min(first, second), max(first, second)) in row.only


def pairs_by(rows: Iterable[RankedRow], objective: str) -> list[Pair]:
    """The rows as (chosen, rejected) by one objective, in the rows' order; a row of n responses makes up to n(n-1)/2.

    Ids are unique: of rows that occur several times the later ones are numbered.
    """
    return _pairs(rows, lambda row: ranked_pairs(row, objective), objective)


def all_pairs(rows: Iterable[RankedRow]) -> list[Pair]:
    """Any two different responses of every row, whatever its labels say; ids are those of `pairs_by`."""

    def different(row: RankedRow) -> Iterator[tuple[int, int]]:
        firsts = [row.responses.index(text) for text in dict.fromkeys(row.responses)]
        return (pair for pair in itertools.combinations(firsts, 2) if is_used(row, *pair))

    return _pairs(rows, different, "")


def _pairs(
    rows: Iterable[RankedRow], chosen: Callable[[RankedRow], Iterable[tuple[int, int]]], objective: str
) -> list[Pair]:
    """The pairs of responses whose indices (chosen, rejected) a function names.

    Args:
        rows: prompts with their responses.
        chosen: the indices of a row's pairs.
        objective: recorded in each pair.
    """
    seen: Counter[str] = Counter()
    pairs = []
    for row in rows:
        seen[row_id := row.id] += 1
        repeated = f"#{seen[row_id]}" if seen[row_id] > 1 else ""
        for better, worse in chosen(row):
            which = f"-{min(better, worse)}-{max(better, worse)}" if len(row.responses) > 2 else ""
            pairs.append(
                Pair(
                    id=f"{row_id}{which}{repeated}",
                    prompt=row.prompt,
                    chosen=row.responses[better],
                    rejected=row.responses[worse],
                    group=row.group,
                    objective=objective,
                    set=f"{row_id}{repeated}",
                    likelihood_start=row.correction_starts[better] if row.correction_starts else 0,
                    location=row.location,
                )
            )
    return pairs


def num_unranked(rows: Iterable[RankedRow], objective: str) -> int:
    """Rows that make no pair by an objective: it scores fewer than two of their responses, or scores them all alike."""
    return sum(next(ranked_pairs(row, objective), None) is None for row in rows)


@dataclass(frozen=True, slots=True)
class HarmRequest:
    """A request with a response to begin for the model: harmful, or for a control harmless."""

    id: str
    prompt: Prompt
    safe_response: str | None
    """Another response that is labelled safe; None where there is none."""
    harmful_response: str
    location: str
    categories: tuple[str, ...] = ()
    """Categories of the response's harm; empty where the data names none."""

    @property
    def group(self) -> str:
        """Hash of the prompt: requests of one prompt share it."""
        return group_of(self.prompt)


def group_of(prompt: Prompt) -> str:
    """Hash of a prompt: what is of one prompt shares it."""
    return text_id(*_parts(prompt))


def _parts(prompt: Prompt) -> Iterator[str]:
    if isinstance(prompt, str):
        yield prompt
        return
    yield f"conversation of {len(prompt)}"  # no text of a row can then be taken for a turn
    for turn in prompt:
        yield turn.role
        yield turn.content
