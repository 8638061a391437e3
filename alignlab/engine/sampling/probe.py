"""Whether a model can share prefixes among its samples, tried once on a small text."""

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from alignlab.engine.models import causal_lm
from alignlab.engine.sampling.base import PrefixRequest
from alignlab.engine.sampling.draw import Sampling
from alignlab.engine.sampling.local import Decoder, DecodeSettings
from alignlab.engine.sampling.prefixes import branches_of, shared_prefixes_of
from alignlab.runs.progress import say

_LAYERS = {"full_attention", "sliding_attention"}
"""Kinds of layers whose attention is what the shared way computes. The probe's text is too short to tell chunked or
compressed attention from these, so a model that names another kind is not tried at all."""

_ROUNDING = {torch.float32: 1e-3}
_COARSE_ROUNDING = 0.1
"""Greatest difference of a next token's logits between both ways, as a share of their spread, that is rounding."""

_NEW_TOKENS = 4


def shares_prefixes(model: Any) -> bool:
    """Whether the shared way gives the logits of the model's own forward; if it does not, that is said once.

    Args:
        model: a causal language model in evaluation mode, with or without an adapter.
    """
    inner = causal_lm(model)
    if inner not in _tried:
        layers = getattr(inner.config.get_text_config(), "layer_types", None) or ()
        _tried[inner] = set(layers) <= _LAYERS and _same_logits(model)
        if not _tried[inner]:
            say(f"{type(inner).__name__} cannot share prefixes among samples: every path reads its own")
    return _tried[inner]


_tried: "WeakKeyDictionary[nn.Module, bool]" = WeakKeyDictionary()


class _Watched(Decoder):
    """Notes the texts and logits of its last draw."""

    texts: list[list[int]]
    logits_LV: Tensor

    def _draw(self, logits_LV: Tensor, samples: Sequence[Any], numbers_L: Tensor) -> Tensor:
        self.texts = [[*sample.branch.prefix_ids, *sample.tokens] for sample in samples]
        self.logits_LV = logits_LV
        return super()._draw(logits_LV, samples, numbers_L)


@torch.no_grad()
def _same_logits(model: Any) -> bool:
    """Five branches of two prefixes, at three depths; any error of shared attention counts as a no."""
    vocabulary = causal_lm(model).get_input_embeddings().weight.shape[0]
    long, short = torch.randint(0, vocabulary, (2, 24), generator=torch.Generator().manual_seed(0)).tolist()
    requests = [PrefixRequest("a", long[:9], 2), PrefixRequest("b", long, 2), PrefixRequest("c", short[:11], 1)]
    settings = DecodeSettings(Sampling(1.0, 1.0), _NEW_TOKENS, 0, frozenset())
    watched = _Watched(model, settings, batch_size=8, finished=lambda branch, tokens: None)
    try:
        watched.run(shared_prefixes_of(branches_of(requests)))
    except (TypeError, ValueError, RuntimeError, AttributeError, LookupError):
        return False
    device = next(model.parameters()).device
    expected = [model(torch.tensor([text], device=device), use_cache=False).logits[0, -1] for text in watched.texts]
    expected_LV = torch.stack(expected).float()
    bound = _ROUNDING.get(causal_lm(model).dtype, _COARSE_ROUNDING) * expected_LV.std(-1).max()
    return bool((watched.logits_LV.float() - expected_LV).abs().max() <= bound)
