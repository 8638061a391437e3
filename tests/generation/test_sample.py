import torch

from alignlab.config.schema import GeneratorConfig
from alignlab.generation.sample import SampleRequest, _draw, sample_responses
from alignlab.preference.logps import response_logits


def draw(base, requests, *, batch_size=64, seed=0, **changes):
    settings = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 12} | changes
    config = GeneratorConfig(kind="transformers", samples=1, batch_size=batch_size, **settings)
    options = {"eos": base.tokenizer.eos_token_id, "pad": base.tokenizer.pad_token_id, "label": ""}
    return [row.response_ids for row in sample_responses(base.model, requests, config=config, seed=seed, **options)]


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
    logits, _, _ = response_logits(base.model, [type_row(base, requests[0])])
    expected = torch.softmax(logits[0], -1)
    seen = torch.bincount(first, minlength=len(expected)) / len(first)
    assert (seen - expected).abs().max() < 4 * (0.25 / 4000) ** 0.5


def type_row(base, request):
    from alignlab.models.prompts import Encoded

    return Encoded(request.prompt_ids, [base.tokenizer.eos_token_id])


def test_top_p_keeps_the_smallest_set_that_reaches_it():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).repeat(1000, 1)
    uniforms = torch.linspace(0, 0.9999, 1000, dtype=torch.float64)
    assert set(_draw(logits, uniforms, 1.0, 0.7).tolist()) == {0, 1}
    assert set(_draw(logits, uniforms, 1.0, 1.0).tolist()) == {0, 1, 2, 3}
    assert set(_draw(logits, uniforms, 1.0, 0.4).tolist()) == {0}


def test_a_low_temperature_is_greedy():
    logits = torch.tensor([[1.0, 1.2, 0.9]]).repeat(10, 1)
    uniforms = torch.linspace(0, 0.99, 10, dtype=torch.float64)
    assert set(_draw(logits, uniforms, 0.001, 1.0).tolist()) == {1}
