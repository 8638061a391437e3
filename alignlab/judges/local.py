"""A judge in this process: a causal language model's probability of yes, or a guard model's of safe."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignlab.config.schema import LocalJudgeConfig, PretrainedConfig
from alignlab.data.records import Turn
from alignlab.engine.scoring.next_token import next_token_masses
from alignlab.errors import ConfigError
from alignlab.io.hashes import text_id
from alignlab.judges.asking import Ask, AskingJudge, OnAnswer
from alignlab.judges.base import ID_DIGITS, Answer
from alignlab.judges.wording import WORD_FORM, as_data, build_prompt, prompt_id
from alignlab.models.base import Base, load_base
from alignlab.models.chat import ChatTemplate

CONVERSATION = "conversation"
"""The name under which a guard model's answers stand, since its own template holds the question."""


class LocalJudge(AskingJudge):
    """A causal language model.

    Args:
        config: its settings.
        cache: root of what runs share.
        folder: the run's folder.
        device: cpu or cuda.
        key: what its settings stand under, for errors.
    """

    def __init__(
        self, config: LocalJudgeConfig, *, cache: Path | None, folder: Path | None, device: str, key: str = "judge"
    ) -> None:
        self._config = config
        self._base = _load(config, device, key)
        tokenizer = self._base.tokenizer
        self._yes, self._no = _first_tokens(config, tokenizer, key)
        self._chat = None
        if config.ask == "conversation":
            remedy = f"take a guard model whose template does, or {key}.judge=local, which words the question itself"
            remedy = remedy if key != "judge" else remedy.replace("judge.judge", "judge")
            self._chat = ChatTemplate(tokenizer, key=f"{key}.prompt_template", remedy=remedy)
        self._control = sorted({str(token) for token in tokenizer.added_tokens_decoder.values()}, key=len, reverse=True)
        settings = (config.prompt_template, config.ask, config.answer_prefix, config.threshold, config.min_mass)
        parts = ("local", self._base.scorer, *map(str, settings), str(self._yes), str(self._no))
        judge_id = text_id(*parts, digits=ID_DIGITS)
        asked = config.ask == "question"
        names = (
            {name: prompt_id(name, WORD_FORM) for name in config.wordings} if asked else {CONVERSATION: CONVERSATION}
        )
        super().__init__(judge_id, names, cache=cache, folder=folder)

    def _ask(self, asks: Sequence[Ask], on_answer: OnAnswer, *, known: bool) -> None:
        prompts = [self._prompt_ids(ask) for ask in asks]
        groups, size = (self._yes, self._no), self._config.batch_size
        for batch, masses_R2 in next_token_masses(self._base.model, prompts, groups, max_rows=size, label="judging"):
            for index, (yes, no) in zip(batch, masses_R2.tolist(), strict=True):
                on_answer(asks[index], self._answer(yes, no))

    def _prompt_ids(self, ask: Ask) -> list[int]:
        tokenizer, prefix = self._base.tokenizer, self._config.answer_prefix
        if self._chat is None:
            prompt = build_prompt(ask.item, ask.wording, form=WORD_FORM, control=self._control)
            ids = self._base.encoder.prompt_ids(prompt)
        else:
            dialogue = (
                Turn("user", as_data(ask.item.request, self._control)),
                Turn("assistant", as_data(ask.item.continuation, self._control)),
            )
            [text] = self._chat.dialogues([dialogue], ask=True)
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return [*ids, *(tokenizer(prefix, add_special_tokens=False)["input_ids"] if prefix else ())]

    def _answer(self, yes: float, no: float) -> Answer:
        if yes + no < self._config.min_mass or yes + no == 0:
            return Answer(None, "off_menu")
        share = yes / (yes + no)
        return Answer(share >= self._config.threshold, f"yes {share:.2f}")


def _load(config: LocalJudgeConfig, device: str, key: str) -> Base:
    model = PretrainedConfig(
        kind="hf",
        name="judge",
        prompt_template=config.prompt_template,
        learning_rate=1e-5,  # nothing is trained; the model's settings need one
        path=str(config.path),
        revision=config.revision,
        adapter=None,
        dtype=config.dtype,
        quantization=None,
        attn_implementation="sdpa",
    )
    try:
        return load_base(model, folder=None, device=device, key=f"{key}.path")
    except ValueError as error:
        raise ConfigError(
            f"{key}.path={config.path}: {str(error).splitlines()[0].replace('model.', f'{key}.')}"
        ) from None


def _first_tokens(config: LocalJudgeConfig, tokenizer: Any, key: str) -> tuple[list[int], list[int]]:
    """Tokens that begin a yes, and a no.

    Args:
        config: the judge's.
        tokenizer: its own.
        key: what its settings stand under.

    Raises:
        ConfigError: if the tokenizer knows no such word, or begins both alike.
    """
    found: list[list[int]] = []
    for name in ("yes_words", "no_words"):
        words = getattr(config, name)
        firsts = {ids[0] for word in words if (ids := tokenizer(word, add_special_tokens=False)["input_ids"])}
        firsts -= {tokenizer.unk_token_id}
        if not firsts:
            raise ConfigError(f"{key}.{name}={words}: the tokenizer of {config.path} knows none of them")
        found.append(sorted(firsts))
    both = {*found[0]} & {*found[1]}
    if both:
        token = tokenizer.convert_ids_to_tokens(min(both))
        raise ConfigError(f"{key}.no_words={config.no_words}: begin with the token {token!r}, as do {key}.yes_words")
    return found[0], found[1]
