"""Pooled hidden states are those of a plain forward of transformers, row by row."""

import pytest
import torch

from alignlab.engine.scoring.states import decoder_layers, pooled_states
from alignlab.errors import ConfigError
from alignlab.models.prompts import Encoded
from support.small import APART, SHARING, model_of

PROMPT = [5, 9, 13, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50]
ROWS = [Encoded(PROMPT, answer) for answer in ([7, 8, 11, 2], [7, 8, 60, 61, 62, 2], [2])]
ROWS.append(Encoded([90, 91, 92], [30, 31, 2]))


def by_hand(model, row, layer, pooling):
    """From transformers' own hidden_states, whose entry 0 is the embedding, but for Mamba's."""
    ids = torch.tensor([row.prompt_ids + row.response_ids[:-1]])
    has_embedding = model.config.model_type != "mamba"
    states = model(ids, output_hidden_states=True, use_cache=False).hidden_states[layer - (not has_embedding)][0]
    text = states[len(row.prompt_ids) :] if len(row.response_ids) > 1 else states[-1:]
    return text.mean(0) if pooling == "mean" else text[-1]


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("name", [*SHARING, *APART])
def test_states_are_those_of_a_plain_forward(name, pooling):
    model = model_of(name)
    found = pooled_states(model, ROWS, layers=[1], pooling=pooling, label="")
    expected = torch.stack([by_hand(model, row, 1, pooling) for row in ROWS])
    torch.testing.assert_close(found[:, 0], expected, atol=2e-5, rtol=1e-4)
    assert (found[0] - found[1]).abs().max() > 1e-3, "control: rows differ"


def test_layers_come_in_the_order_asked_for_and_the_highest_ends_the_forward():
    model = model_of("Llama")
    both = pooled_states(model, ROWS, layers=[2, 1], pooling="mean", label="")
    seen = []
    handle = decoder_layers(model)[1].register_forward_hook(lambda *_: seen.append(1))
    first = pooled_states(model, ROWS, layers=[1], pooling="mean", label="")
    handle.remove()
    torch.testing.assert_close(both[:, 1], first[:, 0])
    assert len(seen) <= 2, "only the detection of the batch layout computes all layers"


def test_the_end_token_is_no_quality():
    """A response that was cut and one that ended are read alike."""
    model = model_of("Llama")
    ended, cut = Encoded(PROMPT, [7, 8, 11, 2]), Encoded(PROMPT, [7, 8, 11, 99])
    for pooling in ("mean", "last"):
        one, other = pooled_states(model, [ended, cut], layers=[1], pooling=pooling, label="")
        torch.testing.assert_close(one, other)


def test_a_model_without_layers_is_named():
    model = torch.nn.Linear(2, 2)
    model.base_model = model
    model.config = type("Config", (), {"get_text_config": lambda self: type("Text", (), {"num_hidden_layers": 3})})()
    with pytest.raises(ConfigError, match="model: Linear has no list of 3 layers"):
        decoder_layers(model)
