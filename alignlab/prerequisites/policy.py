"""The policy under test, or in whose words something is written: in this process, or on a server."""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from alignlab.config.parts import ModelSource
from alignlab.config.schema import GeneratorConfig, ServerGeneratorConfig
from alignlab.engine.sampling.base import OnDone, PrefixRequest
from alignlab.engine.sampling.generate import generate
from alignlab.models.adapters import adapter_for, adapter_id, local_adapter, with_adapter
from alignlab.models.prompts import PromptEncoder
from alignlab.prerequisites.models import prompt_encoder, reference


@dataclass(frozen=True)
class Policy:
    """A model, or its name on a server, with the tokenizer and template that its prompts are made by."""

    model: Any
    """None where a server holds it."""
    encoder: PromptEncoder
    id: str
    """What its continuations depend on, beside sampling."""
    revision: str | None
    context: int | None
    """Longest text in tokens; None where it is not known."""
    has_adapter: bool = False
    """Whether `model` is a PEFT model, whose base is the reference."""
    name_on_server: str | None = None

    def max_prefix_tokens(self, max_new_tokens: int) -> int | None:
        """Longest prefix that leaves room for a continuation; None where the context is not known."""
        return None if self.context is None else self.context - max_new_tokens

    def generate(
        self,
        requests: Sequence[PrefixRequest],
        settings: GeneratorConfig,
        on_done: OnDone,
        *,
        seed: int,
        label: str,
    ) -> None:
        """Sample continuations of every request.

        Args:
            requests: what to continue, and how often.
            settings: temperature, length, batch size or server.
            on_done: told of every continuation as soon as it is known.
            seed: with a sample's id it makes its randomness.
            label: name on the progress bar.
        """
        if isinstance(settings, ServerGeneratorConfig):
            settings = dataclasses.replace(settings, model=self.name_on_server)
        generate(self.model, requests, config=settings, seed=seed, encoder=self.encoder, on_done=on_done, label=label)


@contextmanager
def policy_under_test(
    source: ModelSource, adapter: str | None, generator: GeneratorConfig, *, key: str = "algorithm.adapter"
) -> Iterator[Policy]:
    """The reference, with an adapter if one is named; or the model that a server holds, by its name there.

    Args:
        source: the base model.
        adapter: folder of an adapter.
        generator: says whether a server holds the model.
        key: what the adapter stands under, for errors.

    Raises:
        ConfigError: if the adapter was trained on another base model or with another prompt template.
    """
    if isinstance(generator, ServerGeneratorConfig):
        name = str(generator.model if adapter is None else generator.adapter_name)
        identity = f"{generator.base_url} {name}"
        if adapter is not None:
            identity += f"+{adapter_id(local_adapter(adapter, key=key))}"
        yield Policy(None, prompt_encoder(source), identity, None, None, name_on_server=name)
        return
    base = reference(source)
    longest = vars(base.model.config).get("max_position_embeddings")
    context = None if longest is None else int(longest)
    if adapter is None:
        yield Policy(base.model, base.encoder, base.scorer, base.revision, context)
        return
    template = source.settings.prompt_template
    found = adapter_for(key, adapter, base_id=base.id, template=template)
    with with_adapter(base.model, found.folder, key=key) as model:
        yield Policy(model, base.encoder, f"{base.scorer}+{found.id}", base.revision, context, has_adapter=True)
