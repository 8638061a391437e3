"""Probabilities of next tokens are those of a plain forward of each prompt, however they are batched."""

import pytest
import torch

from alignlab.engine.scoring import next_token
from alignlab.engine.scoring.next_token import next_token_masses
from support.small import APART, SHARING, model_of

QUESTION = [5, 9, 13, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56]
PROMPTS = [[*QUESTION, 7, 8], [90, 91], [*QUESTION, 7, 8], QUESTION, [*QUESTION, 7, 60, 61]]
GROUPS = ([3, 4], [6])


def by_hand(model):
    shares = [model(torch.tensor([ids]), use_cache=False).logits[0, -1].float().softmax(-1) for ids in PROMPTS]
    return torch.stack([torch.stack([share[group].sum() for group in GROUPS]) for share in shares])


def found(model, **options):
    masses = torch.full((len(PROMPTS), len(GROUPS)), torch.nan)
    for batch, part in next_token_masses(model, PROMPTS, GROUPS, **{"max_rows": None, "label": "judging"} | options):
        masses[batch] = part
    return masses


@pytest.mark.parametrize("name", [*SHARING, *APART])
def test_they_are_those_of_a_plain_forward(name):
    model = model_of(name)
    expected = by_hand(model)
    for max_rows in (None, 1, 2):
        torch.testing.assert_close(found(model, max_rows=max_rows), expected, atol=1e-6, rtol=1e-4)
    assert (expected[0] - expected[1]).abs().max() > 1e-5, "control: prompts differ"


def test_what_prompts_begin_with_alike_is_read_once():
    model, read = model_of("Llama"), []
    found(model)  # detects the batch layout
    handle = model.model.layers[0].register_forward_hook(lambda module, given, out: read.append(given[0].shape[1]))
    found(model)
    handle.remove()
    behind_question = 1 + 2 + 3 + 1  # 7, then 8 and an end, then 60, 61 and an end; an end at once
    assert sum(read) == len(QUESTION) + behind_question + len(PROMPTS[1]) + 1
    assert sum(read) < sum(map(len, PROMPTS)) / 2


def test_out_of_memory_halves_and_changes_nothing(monkeypatch, capsys):
    model, real, sizes = model_of("Llama"), next_token._shares, []
    expected = found(model)

    def narrow(model, batch):
        sizes.append(len(batch.scored_idx_BT))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError
        return real(model, batch)

    monkeypatch.setattr(next_token, "_shares", narrow)
    torch.testing.assert_close(found(model), expected, atol=1e-6, rtol=1e-4)
    assert sizes[0] == len(PROMPTS)
    assert max(sizes[-2:]) <= 2
    assert "judging: out of memory; halves this batch of" in capsys.readouterr().out


@pytest.mark.parametrize("room", [12, 24, 100])
def test_a_batch_keeps_within_memory_however_long_one_prompt_is(monkeypatch, room):
    """A forward may take longer than others so that it holds eight prompts, but never more tokens than memory takes."""
    model, real, read = model_of("Llama"), next_token._shares, []
    expected = found(model)
    budget = lambda model, limit_operations=True: 1 if limit_operations else room  # noqa: E731
    monkeypatch.setattr(next_token, "token_budget", budget)

    def note(model, batch):
        read.append((len(batch.scored_idx_BT), batch.ids_RL.numel()))
        return real(model, batch)

    monkeypatch.setattr(next_token, "_shares", note)
    torch.testing.assert_close(found(model), expected, atol=1e-6, rtol=1e-4)
    assert sum(rows for rows, _ in read) == len(PROMPTS)
    assert all(tokens <= room for rows, tokens in read if rows > 1)
    assert (len(read) > 1) == (room < 100), "control: all of them together take more than the smaller budgets"
