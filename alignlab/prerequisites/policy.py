"""The model whose continuations are measured, or in whose words something is written: here, or on a server."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignlab.config.plan import plan_of
from alignlab.config.schema import RunConfig, ServerGeneratorConfig
from alignlab.engine.sampling.base import OnDone, PrefixRequest
from alignlab.engine.sampling.generate import generate
from alignlab.errors import ConfigError
from alignlab.models.adapters import adapted, adapter_id
from alignlab.models.base import Base
from alignlab.models.cards import AdapterCard, read_card
from alignlab.models.prompts import PromptEncoder
from alignlab.prerequisites.models import prompt_encoder, reference


@dataclass
class Subject:
    """A model, or its name on a server, with the tokenizer and template that its prompts are made by."""

    model: Any
    """None where a server holds it."""
    encoder: PromptEncoder
    id: str
    """What its continuations depend on, beside sampling."""
    revision: str | None
    room: int | None
    """Longest prefix in tokens that leaves room for a continuation; None where nobody knows."""

    def generate(self, requests: list[PrefixRequest], config: RunConfig, on_done: OnDone, *, label: str) -> None:
        """Continuations of every request, handed over as they are known."""
        generate(
            self.model,
            requests,
            config=config.generator,
            seed=config.seed,
            encoder=self.encoder,
            on_done=on_done,
            label=label,
        )


def checked_adapter(key: str, adapter: Path | None, base: Base, prompt_template: str | None) -> AdapterCard | None:
    """The card of an adapter that fits the base model; None where there is no adapter, or it was made elsewhere.

    Args:
        key: the configuration key that names it.
        adapter: its folder.
        base: the model that it is put on.
        prompt_template: this run's.

    Raises:
        ConfigError: if it was trained on another base model or with another prompt template.
    """
    card = None if adapter is None else read_card(adapter)
    if card is None:
        return None
    if card.base != base.id:
        raise ConfigError(f"{key}={adapter}: was trained on another base model ({card.base}, not {base.id})")
    if card.prompt_template != prompt_template:
        what = f"was trained with model.prompt_template={card.prompt_template!r}"
        raise ConfigError(f"{key}={adapter}: {what}, this run has {prompt_template!r}")
    return card


@contextmanager
def subject(config: RunConfig, adapter: str | None) -> Iterator[Subject]:
    """The subject of a run: the reference, with an adapter if one is named, or what a server calls by its name."""
    generator = config.generator
    if isinstance(generator, ServerGeneratorConfig):
        if adapter is not None:
            what = "generator=server has its own model; serve the adapter there under a name of its own"
            raise ConfigError(f"algorithm.adapter={adapter}: {what}, and give that as generator.model")
        yield Subject(
            None, prompt_encoder(plan_of(config).model), f"{generator.base_url} {generator.model}", None, None
        )
        return
    base = reference(plan_of(config).model)
    longest = getattr(base.model.config, "max_position_embeddings", None)
    room = None if longest is None else int(longest) - generator.max_new_tokens
    identity = base.scorer if adapter is None else f"{base.scorer}+{adapter_id(Path(adapter))}"
    if adapter is None:
        yield Subject(base.model, base.encoder, identity, base.revision, room)
        return
    checked_adapter("algorithm.adapter", Path(adapter), base, config.model.prompt_template)
    with adapted(base.model, Path(adapter)) as model:
        yield Subject(model, base.encoder, identity, base.revision, room)
