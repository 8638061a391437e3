"""Hidden states of responses, pooled over their tokens: the features of a probe.

Shape letters: n rows, R rows of a batch, K layers, H hidden width, N scored positions, M scored positions of all rows.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from alignlab.engine.memory import halving_on_oom, token_budget
from alignlab.engine.models import causal_lm, device_of, eval_mode
from alignlab.engine.scoring.forward import engine_layers, make_batch, model_inputs
from alignlab.engine.scoring.layout import TokenBatch
from alignlab.engine.scoring.logps import row_batches
from alignlab.engine.scoring.probe import detect_batch_layout
from alignlab.errors import ConfigError
from alignlab.models.prompts import Encoded
from alignlab.runs.progress import progress


@torch.no_grad()
def pooled_states(
    model: Any,
    rows: Sequence[Encoded],
    *,
    layers: Sequence[int],
    pooling: str,
    label: str,
    batch_size: int | None = None,
    autocast: bool = False,
) -> Tensor:
    """Hidden states after some layers, pooled over each response's text, float32 on the CPU, shape (n, K, H).

    The end token is left out, so a response that was cut at a limit differs from an ended one by its text alone; of an
    empty response the prompt's last token counts. Layers above the highest one are not computed.

    Args:
        model: a causal language model.
        rows: prompts and responses as tokens; each response ends with its end token.
        layers: which layers, counted from 1.
        pooling: `mean` over the response's tokens, or its `last` one.
        label: text of the progress bar.
        batch_size: most rows of one forward; None for no limit beside memory.
        autocast: compute in bfloat16.

    Raises:
        ConfigError: if the model's layers are not to be found.
    """
    stack = decoder_layers(model)
    read = [_up_to_the_end(row) for row in rows]
    device, width = device_of(model), causal_lm(model).config.get_text_config().hidden_size
    states = torch.empty(len(rows), len(layers), width)
    longest = max((len(row.prompt_ids) + len(row.response_ids) for row in rows), default=0)
    batch_layout = detect_batch_layout(model, longest=longest, autocast=autocast)
    batches = row_batches(read, max_tokens=token_budget(model), max_rows=batch_size, is_tree=batch_layout.is_tree)
    precision = torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast)

    def compute(batch: list[int]) -> Tensor:
        tokens = make_batch([read[index] for index in batch], batch_layout).to(device)
        found = _states_after(causal_lm(model).base_model, stack, layers, tokens)
        return torch.stack([_pooled(found[layer], tokens, pooling) for layer in layers], dim=1).cpu()

    with progress(label, len(rows)) as bar, precision, eval_mode(model), engine_layers(model, batch_layout):
        for batch, states_RKH in halving_on_oom(batches, compute, label=label):
            states[batch] = states_RKH
            bar.advance(len(batch))
    return states


def decoder_layers(model: Any) -> nn.ModuleList:
    """The layers of a decoder, in order.

    Raises:
        ConfigError: if no list of modules has as many entries as the config says layers.
    """
    inner = causal_lm(model)
    count = inner.config.get_text_config().num_hidden_layers
    lists = (part for part in inner.base_model.modules() if isinstance(part, nn.ModuleList) and len(part) == count)
    found = next(lists, None)
    if found is None:
        raise ConfigError(f"model: {type(inner).__name__} has no list of {count} layers, so no probe can read it")
    return found


def _up_to_the_end(row: Encoded) -> Encoded:
    """The row with its boundary one token later, so that what precedes a scored token is the response's text."""
    if len(row.response_ids) < 2:
        return row
    return Encoded(row.prompt_ids + row.response_ids[:1], row.response_ids[1:])


class _HighestLayer(Exception):
    """All layers that are asked for have been computed."""


@contextmanager
def _capturing(stack: nn.ModuleList, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Collect the output of some layers (counted from 1) in a forward, which ends after the highest."""
    found: dict[int, Tensor] = {}

    def keep(layer: int) -> Any:
        """A hook that keeps a layer's output."""

        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            found[layer] = output[0] if isinstance(output, tuple) else output
            if layer == max(layers):
                raise _HighestLayer

        return hook

    handles = [stack[layer - 1].register_forward_hook(keep(layer)) for layer in set(layers)]
    try:
        yield found
    except _HighestLayer:  # all that is asked for has been seen; the layers above are not computed
        pass
    finally:
        for handle in handles:
            handle.remove()


def _states_after(
    backbone: nn.Module, stack: nn.ModuleList, layers: Sequence[int], batch: TokenBatch
) -> dict[int, Tensor]:
    """Layer -> its output at the positions before each scored token, float32, (N, H)."""
    with _capturing(stack, layers) as found:
        backbone(**model_inputs(batch))
    return {layer: out.reshape(-1, out.shape[-1])[batch.sources_N].float() for layer, out in found.items()}


def _pooled(states_NH: Tensor, batch: TokenBatch, pooling: str) -> Tensor:
    """One vector a row, (R, H)."""
    scored_RT = batch.scored_idx_BT < len(batch.sources_N)
    row_M, t_M = scored_RT.nonzero(as_tuple=True)
    if pooling == "last":
        last_R = (scored_RT * torch.arange(1, scored_RT.shape[1] + 1, device=scored_RT.device)).argmax(dim=1)
        return states_NH[batch.scored_idx_BT.gather(1, last_R[:, None])[:, 0]]
    sums_RH = torch.zeros(len(scored_RT), states_NH.shape[1], device=states_NH.device)
    sums_RH.index_add_(0, row_M, states_NH[batch.scored_idx_BT[row_M, t_M]])
    return sums_RH / scored_RT.sum(dim=1)[:, None]
