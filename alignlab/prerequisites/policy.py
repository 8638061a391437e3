"""The model whose continuations are measured, or in whose words something is written: here, or on a server."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignlab.config.schema import RunConfig, ServerGeneratorConfig
from alignlab.engine.sampling.base import OnDone, PrefixRequest
from alignlab.engine.sampling.generate import generate
from alignlab.models.adapters import adapted, adapter_id
from alignlab.models.prompts import PromptEncoder
from alignlab.prerequisites.reference import prompt_encoder, reference


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


@contextmanager
def subject(config: RunConfig, adapter: str | None) -> Iterator[Subject]:
    """The subject of a run: the reference, with an adapter if one is named, or what a server calls by its name."""
    generator = config.generator
    if isinstance(generator, ServerGeneratorConfig):
        yield Subject(None, prompt_encoder(config), f"{generator.base_url} {generator.model}", None, None)
        return
    base = reference(config)
    longest = getattr(base.model.config, "max_position_embeddings", None)
    room = None if longest is None else int(longest) - generator.max_new_tokens
    identity = base.scorer if adapter is None else f"{base.scorer}+{adapter_id(Path(adapter))}"
    if adapter is None:
        yield Subject(base.model, base.encoder, identity, base.revision, room)
        return
    with adapted(base.model, Path(adapter)) as model:
        yield Subject(model, base.encoder, identity, base.revision, room)
