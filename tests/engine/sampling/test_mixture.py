"""A mixture of adapters: its distribution, its decoding, and what it is not: the optimum, which whole responses are."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from alignlab.engine.sampling.draw import RandomStream, Sampling, draw_tokens
from alignlab.engine.sampling.generate import decode
from alignlab.engine.sampling.local import DecodeSettings
from alignlab.engine.sampling.mixture import Member, mixed_logits, mixture_of
from alignlab.engine.scoring.logps import divergence
from alignlab.errors import ConfigError
from alignlab.evaluation.weighted import tilted
from alignlab.models.prompts import Encoded
from alignlab.models.with_adapter import with_adapter
from support.enumerable import LENGTH, RESPONSES, TableModel, logps_of
from support.small import STOP, model_of, nested_branches

BETA = 0.5
SETTINGS = DecodeSettings(Sampling(1.0, 1.0), 8, 3, frozenset({STOP}))
SHAPES = (
    {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    {"r": 16, "lora_alpha": 32, "target_modules": ["q_proj", "down_proj"]},
)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """Two adapters of other ranks, scales and layers."""
    folders = []
    for number, shape in enumerate(SHAPES):
        torch.manual_seed(number)
        wrapped = get_peft_model(model_of("Llama"), LoraConfig(**shape, task_type="CAUSAL_LM"))
        for name, weight in wrapped.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.2)
        folders.append(tmp_path_factory.mktemp(f"adapter{number}"))
        wrapped.save_pretrained(folders[-1])
        wrapped.unload()
    return folders


def decoded(model, branches, batch_size=64):
    found = {}
    decode(
        model,
        branches,
        settings=SETTINGS,
        batch_size=batch_size,
        finished=lambda branch, tokens: found.update({branch.name: list(tokens)}),
    )
    return found


def step_by_step(model, branch):
    """Draw a branch by whole forwards, without a cache or other branches."""
    stream = RandomStream(branch.name, seed=SETTINGS.seed, count=SETTINGS.max_new_tokens)
    tokens = []
    while len(tokens) < SETTINGS.max_new_tokens and (not tokens or tokens[-1] != STOP):
        with torch.no_grad():
            logits = model(torch.tensor([[*branch.prefix_ids, *tokens]]), use_cache=False).logits[:, -1]
        number = torch.tensor([stream.attempt(0)[len(tokens)]], dtype=torch.float64)
        tokens.append(int(draw_tokens(logits, number, None, SETTINGS.sampling)))
    return tokens


@pytest.mark.parametrize("exponents", [(0.3, 0.7, 0.0), (0.5, 0.2, 0.3), (1.4, -0.4, 0.0)])
def test_its_logits_are_the_weighted_log_probabilities(adapters, exponents):
    model, ids = model_of("Llama"), torch.tensor([[5, 9, 7, 40], [3, 60, 8, 11]])
    expected = exponents[2] * torch.log_softmax(model(ids).logits, -1)
    for folder, exponent in zip(adapters, exponents, strict=False):
        with with_adapter(model, folder) as wrapped:
            expected = expected + exponent * torch.log_softmax(wrapped(ids).logits, -1)
    members = [*(Member(*pair) for pair in zip(adapters, exponents, strict=False)), Member(None, exponents[2])]
    before = model(ids).logits
    with mixture_of(model, members) as mixture:
        found = torch.log_softmax(mixture(ids).logits, -1)
        with mixture.disable_adapter():
            assert mixture(ids).logits.equal(before)
    assert found.sub(torch.log_softmax(expected, -1)).abs().max() < 1e-5
    assert model(ids).logits.equal(before), "the base is itself again"


@pytest.mark.parametrize("exponents", [(0.4, 0.6), (0.5, 0.2)])
def test_shared_prefixes_decode_what_whole_forwards_do(adapters, exponents):
    model, branches = model_of("Llama"), nested_branches(samples=2)
    members = [*(Member(*pair) for pair in zip(adapters, exponents, strict=True)), Member(None, 1 - sum(exponents))]
    with mixture_of(model, members) as mixture:
        found = decoded(mixture, branches)
        assert decoded(mixture, branches, batch_size=3) == found, "as many branches as members"
        assert found == {branch.name: step_by_step(mixture, branch) for branch in branches}
    assert found != decoded(model, branches)


def test_at_an_end_it_is_the_policy_itself(adapters):
    model, branches = model_of("Llama"), nested_branches(samples=3)
    with with_adapter(model, adapters[1]) as wrapped:
        expected = decoded(wrapped, branches)
    for members in ([Member(adapters[1], 1.0)], [Member(adapters[0], 0.0), Member(adapters[1], 1.0)]):
        with mixture_of(model, members) as mixture:
            assert decoded(mixture, branches) == expected
    with mixture_of(model, [Member(adapters[0], 1.0)]) as mixture:
        assert decoded(mixture, branches) != expected


def test_its_kl_is_of_its_own_next_token_distributions(adapters):
    model, rows = model_of("Llama"), [Encoded([5, 9, 7], [40, 12, STOP]), Encoded([3], [60, STOP])]
    with mixture_of(model, [Member(adapters[0], 0.5), Member(adapters[1], 0.5)]) as mixture:
        found = divergence(mixture, rows, label="")
        for index, row in enumerate(rows):
            ids = torch.tensor([row.prompt_ids + row.response_ids])
            at = slice(len(row.prompt_ids) - 1, -1)
            log_p = torch.log_softmax(mixture(ids).logits[0, at], -1)
            with mixture.disable_adapter():
                log_q = torch.log_softmax(model(ids).logits[0, at], -1)
            assert found.kl[index] == pytest.approx(float((log_p.exp() * (log_p - log_q)).sum()), rel=1e-4)


def test_an_adapter_that_is_more_than_lora_is_refused(tmp_path):
    model = model_of("Llama")
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], use_dora=True, task_type="CAUSAL_LM"))
    wrapped.save_pretrained(tmp_path)
    wrapped.unload()
    with pytest.raises(ConfigError, match="mixes plain LoRA"), mixture_of(model, [Member(tmp_path, 1.0)]):
        pass


def endpoint(reference_logps, rewards):
    """The table of pi_ref * exp(r / beta): next-token probabilities by adding up what each context leads to."""
    joint = torch.softmax(reference_logps + rewards / BETA, 0)
    policy = TableModel().double()
    with torch.no_grad():
        for depth in range(LENGTH):
            for start in range(2**depth):
                context = 2 ** (depth + 1) + start  # a leading 1, the prompt's 0, and the tokens so far
                width = 2 ** (LENGTH - depth)
                halves = joint[start * width : (start + 1) * width].view(2, -1).sum(1)
                policy.model.table[context] = halves.log()
    return policy


def test_by_sequence_it_is_the_optimum_and_by_token_it_is_not():
    """On a model whose eight responses can be listed."""
    ref = logps_of(TableModel().double())
    rewards = 2 * torch.randn(2, len(RESPONSES), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    policies, weights = [endpoint(ref, one) for one in rewards], torch.tensor([0.4, 0.6], dtype=torch.float64)
    logps = torch.stack([logps_of(policy) for policy in policies])
    for one, reward in zip(logps, rewards, strict=True):
        assert one.exp().sub(torch.softmax(ref + reward / BETA, 0)).abs().max() < 1e-6, "an end is its optimum"
    optimum = torch.softmax(ref + weights @ rewards / BETA, 0)
    sequence = tilted((weights @ (logps - ref)).numpy(), base_S=ref.exp().numpy())
    assert abs(sequence.probability_S - optimum.numpy()).max() < 1e-6
    assert sequence.kl == pytest.approx(float((optimum * (optimum.log() - ref)).sum()), abs=1e-6)
    ids = torch.tensor([row.prompt_ids + row.response_ids for row in RESPONSES])
    with torch.no_grad():
        each = torch.stack([policy(ids[:, :-1]).logits for policy in policies], dim=1)
    mixed = torch.log_softmax(mixed_logits(each, weights.float()), -1)
    token = mixed.gather(-1, ids[:, 1:, None]).sum((1, 2)).exp()
    assert float(token.sum()) == pytest.approx(1, abs=1e-6)
    assert float((token * (token / optimum).log()).sum()) > 0.01
    assert (token - optimum).abs().max() > 0.01
