import torch

from alignlab.config.schema import ArchitectureConfig, LocalGeneratorConfig
from alignlab.engine.sampling.base import PrefixRequest
from alignlab.engine.sampling.generate import generate, stop_tokens
from alignlab.engine.sampling.sample import SampleRequest, sample_responses
from alignlab.engine.scoring.logps import response_logits
from alignlab.models.prompts import Encoded, PromptEncoder
from alignlab.models.scratch import new_llama
from support.templates import FAMILIES, tokenizer_of


def draw(base, requests, *, batch_size=64, seed=0, **changes):
    how = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 12} | changes
    config = LocalGeneratorConfig(kind="transformers", samples=1, prompts=1, batch_size=batch_size, **how)
    stops = stop_tokens(base.model, base.encoder)
    rows = sample_responses(base.model, requests, config=config, seed=seed, stops=stops, label="")
    assert [row.prompt_ids for row in rows] == [request.prompt_ids for request in requests]
    return [row.response_ids for row in rows]


def requests_of(base, prompts):
    return [SampleRequest(f"{number}", base.encoder.prompt_ids(prompt)) for number, prompt in enumerate(prompts)]


PROMPTS = ["now turn the widget", "mind the red lantern first", "simply skip", "what a lovely red widget today"] * 3


def test_draws_do_not_depend_on_order_or_batch_size(base):
    requests = requests_of(base, PROMPTS)
    together = draw(base, requests)
    assert draw(base, requests, batch_size=1) == together
    assert draw(base, requests[::-1])[::-1] == together


def test_the_seed_and_the_id_change_the_draw(base):
    requests = requests_of(base, PROMPTS)
    assert draw(base, requests, seed=1) != draw(base, requests)
    same_prompt = draw(base, requests_of(base, PROMPTS[:1] * 8))
    assert len({tuple(ids) for ids in same_prompt}) > 1


def test_frequencies_are_the_models_probabilities(base):
    requests = requests_of(base, PROMPTS[:1] * 4000)
    first = torch.tensor([ids[0] for ids in draw(base, requests, max_new_tokens=1, batch_size=4000)])
    logits, _, _ = response_logits(base.model, [Encoded(requests[0].prompt_ids, [base.tokenizer.eos_token_id])])
    expected = torch.softmax(logits[0], -1)
    seen = torch.bincount(first, minlength=len(expected)) / len(first)
    assert (seen - expected).abs().max() < 4 * (0.25 / 4000) ** 0.5


def test_a_response_ends_with_its_stop_token_or_at_the_limit(base):
    eos = base.tokenizer.eos_token_id
    rows = draw(base, requests_of(base, PROMPTS * 20))
    ended = [row for row in rows if eos in row]
    assert ended
    assert len(ended) < len(rows)
    assert all(row.index(eos) == len(row) - 1 for row in ended)
    assert all(len(row) == 12 for row in rows if eos not in row)


def test_a_turn_ends_with_the_templates_own_end_token():
    """Phi-3's <|end|>, which is neither the tokenizer's EOS nor in the list of a model made here."""
    encoder = PromptEncoder(tokenizer_of(FAMILIES["phi3"]), None)
    end, eos = encoder.end_id, encoder.tokenizer.eos_token_id
    other = next(token for token in range(9) if token not in (end, eos))
    config = LocalGeneratorConfig(
        "transformers", samples=1, prompts=1, batch_size=2, temperature=0.0, top_p=1.0, max_new_tokens=5
    )
    model = new_llama(ArchitectureConfig(len(encoder.tokenizer), 16, 16, 1, 2, 64, 0.02), encoder.tokenizer, seed=0)
    model.eval().lm_head = torch.nn.Linear(16, len(encoder.tokenizer))
    endings = {}
    for token in (end, eos, other):
        with torch.no_grad():
            model.lm_head.bias.zero_()[token] = 1e3
        (found,) = generate(model, [PrefixRequest("a", [1, 2], 1)], config=config, seed=0, encoder=encoder)["a"]
        endings[token] = found.finish
    assert end != eos
    assert endings == {end: "stop", eos: "stop", other: "length"}
