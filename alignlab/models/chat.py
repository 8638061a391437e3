"""Split conversations that a tokenizer's own chat template renders into the prompt and the assistant's answer.

The template sees the texts as they are, thoughts included; nothing is marked inside it. Where the answer begins and
ends is found by rendering the conversation with two probe answers, and what stands there is compared with the answer
given: a template that changes it is refused. Only control tokens in data are replaced, each by three code points that
no text may hold, so that they are read as text afterwards.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from alignlab.data.records import Turn
from alignlab.io.hashes import text_id
from alignlab.io.prefix import common_prefix
from alignlab.models.rendering import Conversation, Rendered, TemplateError, missing_turn, renderer_of, squeeze

_PROBES = ("Aye, it is.", "No: 3\n\nnever")
"""Two answers that share neither their first nor their last character."""
_STAND_IN = re.compile("([\ufdd0-\ufdef]{3})")
_THOUGHT = re.compile(
    r"</?\W*(?:think|thinking|thought|reasoning)\W*>|\[/?THINK\]|<\|(?:START|END)_THINKING\|>|<\|?channel\|?>"
)
"""Tags around a thought, which an assistant's turn may hold and a template may look for."""
REMEDY = "set {key} to a text with {{raw_prompt}}, or use other data"


@dataclass(frozen=True)
class Frame:
    """What a template writes around any answer to one conversation."""

    asked: str
    """The conversation with the generation prompt."""
    before: str
    """Up to the first character of an answer without a thought; an empty thought may stand at its end."""
    after: str
    """After the answer."""

    @property
    def prompt(self) -> str:
        """What a model continues: `before`, but white space alone after the generation prompt belongs to the answer."""
        return self.asked if self.gap or self.before == self.asked else self.before

    @property
    def gap(self) -> str:
        """White space that every answer begins with, as Llama-2's: it shares a token with the first word."""
        added = self.before.removeprefix(self.asked) if self.before.startswith(self.asked) else ""
        return added if added.isspace() else ""


@dataclass(frozen=True)
class Split:
    """A rendered conversation in two."""

    prompt: str
    whole: str
    """Prompt and answer, and text before the token that ends the turn."""


class ChatTemplate:
    """A tokenizer's chat template: renders conversations and splits them where the answer begins.

    Args:
        tokenizer: a transformers tokenizer with one chat template, or a default among several.
        key: the setting that a text template would stand under, for errors.
        remedy: what to do about a template that does not fit; None where a text template can be set.

    Raises:
        TemplateError: if it has several templates without a default, or its template renders no request.
    """

    def __init__(self, tokenizer: Any, *, key: str = "model.prompt_template", remedy: str | None = None) -> None:
        self.tokenizer, self._key = tokenizer, key
        self._remedy = remedy = remedy or REMEDY.format(key=key)
        try:
            self.template = str(tokenizer.get_chat_template())
        except ValueError:
            names = ", ".join(sorted(tokenizer.chat_template or ()))
            raise TemplateError(
                f"{key}=null: {self._name} has no default among {names}; name one `default` in its files, or {remedy}"
            ) from None
        variables = {name: value for name, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
        self._renderer = renderer_of(self.template, variables)
        asked = self._renderer.render_all([Conversation((Turn("user", "hello"),), ask=True)])[0]
        if asked.error:
            raise TemplateError(f"{key}=null: {self._name}: {asked.error}; {remedy}")
        if squeeze("hello") not in squeeze(asked.text):
            raise TemplateError(f"{key}=null: {self._name} drops the user's request; {remedy}")
        added = tokenizer.added_tokens_decoder.values()
        special = [token.content for token in added if token.special]
        written = [token.content for token in added if token.content in self.template]
        headers = [token for token in written if token in asked.text]
        self._names = [token.content for token in added]
        self._in_requests = _any_of([*special, *written])
        self._in_answers = _any_of(token for token in [*special, *headers] if not _THOUGHT.fullmatch(token))
        self._roles: set[tuple[str, ...]] = set()
        """Sequences of roles that the template renders whole."""
        bos = tokenizer.bos_token_id
        self._lacks_bos = bos is not None and tokenizer("a")["input_ids"][:1] == [bos] != self._ids(asked.text)[:1]

    @cached_property
    def end_id(self) -> int:
        """The token that ends an answer: of Gemma <end_of_turn>, where the tokenizer's EOS ends the text."""
        after = self._of_a_request.after
        known, eos = self.tokenizer.added_tokens_decoder, int(self.tokenizer.eos_token_id)
        return next((token for token in self._ids(after) if token in known), eos)

    @property
    def margins(self) -> tuple[int, int]:
        """Characters of white space that the template itself writes before and after an answer, as Llama-2's."""
        frame = self._of_a_request
        after = frame.after[: self._lead(frame.after)]
        return len(frame.gap), len(after) if after.isspace() else 0

    @cached_property
    def _of_a_request(self) -> Frame:
        try:
            return self._frames_of([(Turn("user", "hello"),)])[0]
        except TemplateError:  # of a request that takes part in a longer conversation alone
            return Frame("", "", "")

    @property
    def _name(self) -> str:
        """The template, in an error."""
        return f"the chat template of {self.tokenizer.name_or_path or 'this tokenizer'}"

    def prompts(self, conversations: Sequence[Sequence[Turn]]) -> list[str]:
        """The text of each conversation, up to where an answer begins.

        Raises:
            TemplateError: if the template refuses a conversation, or drops one of its turns.
        """
        return [frame.prompt for frame in self._frames_of(list(map(tuple, conversations)))]

    def splits(self, conversations: Sequence[tuple[Sequence[Turn], str]], *, sampled: bool = False) -> list[Split]:
        """Each (conversation, answer) as the template renders it, split where the answer begins.

        Args:
            conversations: turns up to the user's last, and the answer.
            sampled: a model wrote the answers: one that the template would change stands as the model wrote it.

        Raises:
            TemplateError: if the template refuses a conversation, drops a turn, or changes an answer.
        """
        given = [(tuple(turns), answer.strip()) for turns, answer in conversations]
        frames = self._frames_of([turns for turns, _ in given])
        whole = iter(self._render([_answered(turns, answer) for turns, answer in given if answer]))
        found = []
        for (turns, answer), frame in zip(given, frames, strict=True):
            rendered = next(whole) if answer else Rendered(frame.before + frame.after)
            split, fault = self._split(answer, frame, rendered)
            if split is None and not sampled:
                raise self._refused(turns, fault)
            found.append(split or self._opened(frame, answer))
        return found

    def opened(self, conversations: Sequence[tuple[Sequence[Turn], str]]) -> list[Split]:
        """Each conversation with an answer that has begun and stays open, a thought in it as any other text."""
        frames = self._frames_of([tuple(turns) for turns, _ in conversations])
        return [self._opened(frame, answer) for frame, (_, answer) in zip(frames, conversations, strict=True)]

    def _opened(self, frame: Frame, answer: str) -> Split:
        return Split(frame.prompt, frame.prompt + frame.gap + self._plain(answer.strip(), "assistant"))

    def dialogues(self, conversations: Sequence[Sequence[Turn]], *, ask: bool) -> list[str]:
        """Whole conversations, the answer among their turns, as a guard model or a reward model reads them.

        Args:
            conversations: turns of each, with the answer.
            ask: add the generation prompt.

        Raises:
            TemplateError: if the template refuses a conversation, or drops one of its turns.
        """
        given = [Conversation(tuple(turns), ask=ask) for turns in conversations]
        self._check_roles([(one.turns, ask) for one in given])
        return [self._whole(one.turns, text) for one, text in zip(given, self._render(given), strict=True)]

    def reopened(self, turns: Sequence[Turn], answer: str) -> str:
        """The conversation with the answer as a turn that is over, and the assistant's header again."""
        frame = self._frames_of([tuple(turns)])[0]
        return self.dialogues([(*turns, Turn("assistant", answer))], ask=True)[0] + (
            frame.prompt.removeprefix(frame.asked) if frame.prompt.startswith(frame.asked) else ""
        )

    def literal(self, turns: Sequence[Turn]) -> str:
        """The conversation and a generation prompt, control tokens in its words as they are."""
        rendered = self._renderer.render_all([Conversation(tuple(turns), ask=True)])[0]
        return self._checked(turns, turns, rendered)

    def tokens_of(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of rendered texts: the template's control tokens are tokens, those in data are text."""
        plain = [text for text in texts if not _STAND_IN.search(text)]
        read = iter(self.tokenizer(plain, add_special_tokens=False)["input_ids"] if plain else [])
        rows = [self._ids_by_piece(text) if _STAND_IN.search(text) else list(next(read)) for text in texts]
        return [[self.tokenizer.bos_token_id, *row] for row in rows] if self._lacks_bos else rows

    def _frames_of(self, conversations: Sequence[tuple[Turn, ...]]) -> list[Frame]:
        new = list(dict.fromkeys(conversations))
        self._check_roles([(turns, True) for turns in new])
        found = self._render(
            [
                one
                for turns in new
                for one in (Conversation(turns, ask=True), *(_answered(turns, probe) for probe in _PROBES))
            ]
        )
        frames = {turns: self._frame(turns, *found[3 * number : 3 * number + 3]) for number, turns in enumerate(new)}
        return [frames[turns] for turns in conversations]

    def _frame(self, turns: tuple[Turn, ...], asked: Rendered, one: Rendered, other: Rendered) -> Frame:
        """What stays the same when only the answer differs."""
        self._whole(turns, asked)
        fault = one.error or other.error
        if fault:
            raise self._refused(turns, f"cannot render an answer: {fault}")
        before = common_prefix(one.text, other.text)
        after = common_prefix(one.text[: before - 1 : -1], other.text[: before - 1 : -1]) if before else 0
        for probe, text in zip(_PROBES, (one.text, other.text), strict=True):
            if squeeze(text[before : len(text) - after]) != squeeze(probe):
                raise self._refused(turns, "cannot be split: what it writes around an answer depends on the answer")
        self._whole(turns, Rendered(one.text[:before]))
        return Frame(asked.text, one.text[:before], one.text[len(one.text) - after :])

    def _split(self, answer: str, frame: Frame, rendered: Rendered) -> tuple[Split | None, str]:
        """Where the answer begins in a rendered conversation, or the reason why it cannot be found."""
        if rendered.error:
            return None, f"cannot render its answer: {rendered.error}"
        text, wanted = rendered.text, squeeze(self._plain(answer, "assistant"))
        if not text.endswith(frame.after):
            return None, "cannot be split: what it writes after an answer depends on the answer"
        end = len(text) - len(frame.after)
        whole = text[:end] + frame.after[: self._lead(frame.after)]
        if text.startswith(frame.before) and squeeze(text[len(frame.before) : end]) == wanted:
            return Split(frame.prompt, whole), ""
        starts = [common_prefix(text, start) for start in (frame.asked, frame.before)]
        for start in (starts[0], max(starts), min(starts)):
            said, opened = squeeze(text[start:end]), squeeze(text[:start])
            head = wanted.removesuffix(said) if said and wanted.endswith(said) else None
            if head is not None and (not head or (_THOUGHT.fullmatch(head) and opened.endswith(head))):
                return Split(text[:start], whole), ""
        what = "drops or changes a part of the answer"
        if _THOUGHT.search(answer):
            what += ", which holds a thought; leave thoughts out of the responses"
        return None, what

    def _lead(self, after: str) -> int:
        """Length of the text before the first control token after an answer, as Llama-2's space; 0 if there is none."""
        return min((after.find(name) for name in self._names if name in after), default=0)

    def _whole(self, turns: Sequence[Turn], rendered: Rendered) -> str:
        """The text, if every turn's words are in it."""
        return self._checked(turns, [Turn(turn.role, self._plain(turn.content, turn.role)) for turn in turns], rendered)

    def _checked(self, turns: Sequence[Turn], as_given: Sequence[Turn], rendered: Rendered) -> str:
        """The text, if it holds the words of every turn as the template was given them."""
        if rendered.error:
            raise self._refused(turns, f"refuses {_roles(turns)}: {rendered.error}", remedy=self._remedy_of(turns))
        lost = missing_turn(rendered.text, as_given)
        if lost is not None:
            what = f"drops or changes its {lost.role} turn ({_roles(turns)})"
            raise self._refused(turns, what, remedy=self._remedy_of(turns))
        return rendered.text

    def _check_roles(self, conversations: Sequence[tuple[tuple[Turn, ...], bool]]) -> None:
        """Refuse roles of which the template drops a turn: a short turn's words may stand elsewhere in the text."""
        new = {tuple(turn.role for turn in turns): (turns, ask) for turns, ask in conversations}
        new = {roles: given for roles, given in new.items() if roles not in self._roles}
        probes = [tuple(Turn(role, f"Probe {number}.") for number, role in enumerate(roles)) for roles in new]
        asks = [ask for _, ask in new.values()]
        texts = self._renderer.render_all([Conversation(turns, ask) for turns, ask in zip(probes, asks, strict=True)])
        for (turns, _), probe, found in zip(new.values(), probes, texts, strict=True):
            lost = None if found.error else missing_turn(found.text, probe)  # a refusal may be of the texts: said later
            if lost is not None:
                what = f"drops its {lost.role} turn ({_roles(turns)})"
                raise self._refused(turns, what, remedy=self._remedy_of(turns))
        self._roles |= set(new)

    def _remedy_of(self, turns: Iterable[Turn]) -> str:
        if any(turn.role == "system" for turn in turns):
            return f"put the system turn's words into the first user turn, or {self._remedy}"
        return self._remedy

    def _refused(self, turns: Sequence[Turn], what: str, *, remedy: str | None = None) -> TemplateError:
        """The conversation is named by its hash: its text may be harmful."""
        row = text_id(*(part for turn in turns for part in (turn.role, turn.content)))
        return TemplateError(f"{self._key}=null: {self._name} {what}, conversation {row}; {remedy or self._remedy}")

    def _render(self, conversations: Sequence[Conversation]) -> list[Rendered]:
        """Renderings of the conversations, control tokens in data replaced."""
        return self._renderer.render_all(
            [
                Conversation(
                    tuple(Turn(turn.role, self._plain(turn.content, turn.role)) for turn in one.turns), one.ask
                )
                for one in conversations
            ]
        )

    def _plain(self, text: str, role: str) -> str:
        """The text with a stand-in for each control token of the template's or the tokenizer's."""
        control = self._in_answers if role == "assistant" else self._in_requests
        text = re.sub("[\ufdd0-\ufdef]", "", text)
        return control.sub(lambda found: _stand_in(self._names.index(found[0])), text)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _ids_by_piece(self, text: str) -> list[int]:
        """Stand-ins as text, the rest as the template's."""
        pieces = _STAND_IN.split(text)  # other, stand-in, other, ..., other
        ids = self._ids(pieces[0])
        for number, piece in enumerate(pieces[1:], 1):
            if piece:
                ids += self._as_text(self._names[_index(piece)]) if number % 2 else self._inside(piece)
        return ids

    def _as_text(self, token: str) -> list[int]:
        """A control token's name as ordinary text."""
        ids = self._inside(token, split_special_tokens=True)
        if not set(ids) & self.tokenizer.added_tokens_decoder.keys():
            return ids
        return self._inside(token[:1]) + self._inside(token[1:])  # an added token that is no special one is not split

    def _inside(self, text: str, **options: bool) -> list[int]:
        """Tokens of a text that other text stands before: some tokenizers put a space in front of a first word."""
        first = self.tokenizer("\n", add_special_tokens=False)["input_ids"]
        ids: list[int] = self.tokenizer("\n" + text, add_special_tokens=False, **options)["input_ids"]
        if ids[: len(first)] == first:
            return ids[len(first) :]
        alone: list[int] = self.tokenizer(text, add_special_tokens=False, **options)["input_ids"]
        return alone


def _answered(turns: tuple[Turn, ...], answer: str) -> Conversation:
    return Conversation((*turns, Turn("assistant", answer)))


def _roles(turns: Iterable[Turn]) -> str:
    return "roles " + ", ".join(turn.role for turn in turns)


def _stand_in(index: int) -> str:
    """Three of the 32 code points U+FDD0 to U+FDEF, for up to 32,768 tokens."""
    return "".join(chr(0xFDD0 + (index >> shift & 31)) for shift in (10, 5, 0))


def _index(stand_in: str) -> int:
    high, middle, low = (ord(character) - 0xFDD0 for character in stand_in)
    return high << 10 | middle << 5 | low


def _any_of(tokens: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted({token for token in tokens if token.strip()}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
