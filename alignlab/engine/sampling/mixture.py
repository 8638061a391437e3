"""A mixture of policies, token by token: pi(y_t | .) is proportional to the product of pi_i(y_t | .) ** e_i.

The policies are LoRA adapters of one base. Every row becomes E rows, one a member, in one forward of the base, and each
member's low-rank change is added to its own rows. The mixture acts as a model: it is sampled and scored as any other.
Decoding keeps keys and values of every member.

Shape letters: B rows, E members, T tokens, V vocabulary, K rank, I and O a layer's inputs and outputs.

Source: Shi et al. 2024, arXiv:2406.18853 (MOD).
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from alignlab.errors import ConfigError
from alignlab.models.with_adapter import saved_keys, touches_base_weights, with_adapter


@dataclass(frozen=True)
class Member:
    """One policy of a mixture."""

    adapter: Path | None
    """None for the base model itself."""
    exponent: float
    key: str = "adapter"
    """What the adapter stands under, for errors."""


@dataclass(frozen=True)
class _Change:
    """Low-rank changes of one layer, one a member; zeros where a member leaves the layer alone."""

    down_EKI: Tensor
    up_EOK: Tensor
    """Scaled."""


def mixed_logits(logits_BETV: Tensor, exponents_E: Tensor) -> Tensor:
    """Logits of the mixture, (B, T, V): the members' own normalisation is a constant, which the softmax drops."""
    if len(exponents_E) == 1 and float(exponents_E) == 1:
        return logits_BETV[:, 0]
    return torch.einsum("betv,e->btv", logits_BETV.float(), exponents_E)


class Mixture(nn.Module):
    """The base model as a mixture; see `mixture_of`.

    Args:
        inner: the base model, a causal language model.
        exponents: one a member.
    """

    def __init__(self, inner: Any, exponents: Sequence[float]) -> None:
        super().__init__()
        self.inner, self.copies = inner, len(exponents)
        device = next(inner.parameters()).device
        self.register_buffer("exponents_E", torch.tensor(list(exponents), device=device), persistent=False)
        self._is_mixed = True
        self.eval()

    def get_base_model(self) -> Any:
        """The base model, as a PEFT model gives it."""
        return self.inner

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """The base model alone, as a PEFT model's."""
        self._is_mixed = False
        try:
            yield
        finally:
            self._is_mixed = True

    def forward(self, input_ids: Tensor, **others: Any) -> Any:
        """The base model's output with the mixture's logits; positions and masks are repeated as the ids are."""
        if not self._is_mixed:
            return self.inner(input_ids, **others)
        for name in ("position_ids", "attention_mask"):
            if others.get(name) is not None:
                others[name] = others[name].repeat_interleave(self.copies, dim=0)
        output = self.inner(input_ids.repeat_interleave(self.copies, dim=0), **others)
        is_flat = self.copies > 1 and len(output.logits) == 1  # only some positions were projected, as one row
        logits = mixed_logits(self._by_member(output.logits), self.get_buffer("exponents_E"))
        output.logits = logits.transpose(0, 1) if is_flat else logits
        return output

    def generate(self, **_: Any) -> Any:
        """Refuse what the decoder falls back to where a model cannot share prefixes."""
        raise ConfigError(f"algorithm=logit_mix: {type(self.inner).__name__} cannot share prefixes among samples")

    def change(self, inputs: Tensor, output: Tensor, change: _Change) -> Tensor:
        """A layer's output with each member's change on its own rows.

        Args:
            inputs: of the layer, (rows, tokens, in).
            output: of the base's layer, (rows, tokens, out).
            change: a member's low-rank change of its own rows.
        """
        if not self._is_mixed:
            return output
        rows_BETI = self._by_member(inputs).to(change.down_EKI.dtype)
        low_BETK = torch.einsum("beti,eki->betk", rows_BETI, change.down_EKI)
        delta = torch.einsum("betk,eok->beto", low_BETK, change.up_EOK)
        return output + delta.reshape(output.shape).to(output.dtype)

    def _by_member(self, rows: Tensor) -> Tensor:
        """(B * E, T, X) -> (B, E, T, X); one row of chosen positions, (1, N * E, X) -> (N, E, 1, X)."""
        if rows.dim() != 3:
            raise ConfigError("algorithm=logit_mix: an adapted layer takes no rows of tokens (a mixture of experts?)")
        if self.copies > 1 and len(rows) == 1:
            return rows.view(-1, self.copies, 1, rows.shape[-1])
        return rows.view(-1, self.copies, *rows.shape[1:])


def copies_of(model: Any) -> int:
    """Rows of the base model that a row of the model takes."""
    return model.copies if isinstance(model, Mixture) else 1


@contextmanager
def mixture_of(model: Any, members: Sequence[Member]) -> Iterator[Mixture]:
    """The base model as a mixture, in evaluation mode; restored on exit.

    Raises:
        ConfigError: if an adapter is not plain LoRA, or does not fit the model.
    """
    mixture = Mixture(model, [member.exponent for member in members])
    with ExitStack() as hooks:
        for name, change in _changes(model, members).items():
            handle = model.get_submodule(name).register_forward_hook(_adding(mixture, change))
            hooks.callback(handle.remove)
        yield mixture


def _adding(mixture: Mixture, change: _Change) -> Any:
    return lambda module, arguments, output: mixture.change(arguments[0], output, change)


@torch.no_grad()
def _changes(model: Any, members: Sequence[Member]) -> dict[str, _Change]:
    """Layer -> the members' changes."""
    found = [{} if member.adapter is None else _factors(model, member.adapter, member.key) for member in members]
    changes = {}
    for name in dict.fromkeys(name for held in found for name in held):
        given = [held.get(name) for held in found]
        down, up = next(one for one in given if one is not None)
        rank = max(len(one[0]) for one in given if one is not None)
        down_EKI = down.new_zeros(len(members), rank, down.shape[1])
        up_EOK = up.new_zeros(len(members), len(up), rank)
        for index, one in enumerate(given):
            if one is not None:
                down_EKI[index, : len(one[0])], up_EOK[index, :, : len(one[0])] = one
        changes[name] = _Change(down_EKI, up_EOK)
    return changes


def _factors(model: Any, folder: Path, key: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Layer -> (A (K, I), B times its scale (O, K)) of a saved adapter, as PEFT reads it.

    Args:
        model: the base model.
        folder: the adapter's.
        key: what it stands under.
    """
    what = f"{key}={folder}: algorithm=logit_mix mixes"
    plain = all(key.endswith((".lora_A.weight", ".lora_B.weight")) for key in saved_keys(folder))
    if not plain or touches_base_weights(folder):
        raise ConfigError(f"{what} plain LoRA adapters; this one holds other weights too")
    found = {}
    with with_adapter(model, folder, key=key) as wrapped:
        for name, layer in wrapped.get_base_model().named_modules():
            if isinstance(layer, LoraLayer):
                down, up = (side["default"].weight.detach().clone() for side in (layer.lora_A, layer.lora_B))
                if down.dim() != 2:
                    raise ConfigError(f"{what} LoRA of linear layers; {name} is none")
                found[name] = (down, up * layer.scaling["default"])
    return found
