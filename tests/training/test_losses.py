"""Every loss is TRL's, of a pair's difference alone where rewards may enter; and MODPO is DPO on a tilted reference."""

import dataclasses
import math
import re

import pytest
import torch
from trl.trainer.utils import FusedCausalLMOutput

from alignlab.config.names import LOSSES, PER_TOKEN_LOSSES, REFUSED_LOSSES, REGRESSION_LOSSES, SMOOTHED_LOSSES
from alignlab.training.losses import PairLogps, PreferenceLoss, clipped, dpo, huber, modpo, reward_tilt, squared
from support.against_trl import assert_alike, engine_of, model_of, table_of, trained
from support.pairs_of_tokens import plain_pairs, ranked_pairs

BETA, SMOOTHING = 0.3, 0.1
TILTABLE = [name for name in LOSSES if name not in PER_TOKEN_LOSSES]


def loss_of(name, *, beta=BETA, weight=1.0, smoothing=SMOOTHING):
    return PreferenceLoss(name, beta, weight=weight, label_smoothing=smoothing if name in SMOOTHED_LOSSES else 0.0)


def random_pairs(count=200, *, spread=20.0):
    """Log-probabilities of responses of 1 to 40 tokens."""
    draw = torch.Generator().manual_seed(0)
    logps = -50 + spread * torch.randn(4, count, generator=draw, dtype=torch.float64)
    return PairLogps(*logps, *torch.randint(1, 41, (2, count), generator=draw))


@pytest.fixture(scope="module")
def trl(tmp_path_factory):
    """TRL's trainer, whose loss is asked for any log-probabilities."""
    table = table_of(plain_pairs()[:2])
    return engine_of("trl", model_of("llama"), table, tmp_path_factory.mktemp("trl"), lora=None)


def by_trl(engine, loss, pairs):
    """TRL's own loss of each pair: a model that says these log-probabilities, each on its response's first token."""
    engine.loss_types, engine.beta, engine.label_smoothing = [loss.loss_type], loss.beta, loss.label_smoothing
    found = []
    for one in range(len(pairs.policy_chosen_P)):
        lengths = torch.stack([pairs.chosen_lengths_P[one], pairs.rejected_lengths_P[one]])
        mask = (torch.arange(41) <= lengths[:, None]) & (torch.arange(41) > 0)
        logps = torch.zeros(2, 40, dtype=torch.float64)
        logps[:, 0] = torch.stack([pairs.policy_chosen_P[one], pairs.policy_rejected_P[one]])
        said = FusedCausalLMOutput(log_probs=logps)
        said.entropy, said.mean_logits, said.is_top1 = logps, logps, logps > 1
        inputs = {
            "input_ids": torch.ones(2, 41, dtype=torch.long),
            "attention_mask": torch.ones(2, 41, dtype=torch.long),
            "completion_mask": mask.long(),
            "ref_chosen_logps": pairs.ref_chosen_P[one : one + 1],
            "ref_rejected_logps": pairs.ref_rejected_P[one : one + 1],
        }
        found.append(float(engine._compute_loss(lambda **_: said, inputs, return_outputs=False)))  # noqa: B023
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_trls(name, trl):
    loss, pairs = loss_of(name), random_pairs(40)
    expected = by_trl(trl, loss, pairs)
    torch.testing.assert_close(loss.per_pair(pairs), expected, rtol=1e-7, atol=1e-8)  # TRL keeps epsilon in float32
    other = dataclasses.replace(loss, beta=1.01 * BETA).per_pair(pairs)
    assert (other - expected).abs().max() > 1e-4  # control


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_trains_as_trls_does(name, tmp_path):
    """Losses, metrics and gradients of three steps."""
    settings = {"loss_type": [name], "beta": BETA, "label_smoothing": loss_of(name).label_smoothing}
    ours, theirs = (
        trained(kind, model_of("llama"), table_of(ranked_pairs()), tmp_path / kind, settings=settings)
        for kind in ("alignlab", "trl")
    )
    assert_alike(ours, theirs)


def test_every_loss_of_trl_is_selectable_or_refused(trl):
    trl.loss_types = ["no such loss"]
    with pytest.raises(ValueError, match="Unknown loss type") as error:
        by_trl(trl, loss_of("no such loss"), random_pairs(1))
    names = re.findall(r"'(\w+)'", str(error.value).partition("Should be one of")[2])
    assert len(names) >= 15
    assert set(names) == {*LOSSES, *REFUSED_LOSSES}
    assert not set(LOSSES) & set(REFUSED_LOSSES)
    for name in LOSSES:
        assert loss_of(name).per_pair(random_pairs(1)).shape == (1,)
    for name in REFUSED_LOSSES:
        with pytest.raises(ValueError, match="unknown"):
            loss_of(name).per_pair(random_pairs(1))


def constant_changes(name):
    """How much a loss of tilted pairs changes when 3 is added to both rewards of every prompt."""
    pairs = random_pairs(spread=1.0)
    rewards_BM = torch.randn(2 * 200, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights_M = torch.tensor([0.3, 0.2], dtype=torch.float64)
    weight = 1.0 if name in PER_TOKEN_LOSSES else 0.5
    tilts = (reward_tilt(rewards_BM + c, weights_M=weights_M, beta=BETA).chunk(2) for c in (0, 3))
    plain, moved = (loss_of(name, weight=weight).per_pair(pairs.tilted(*tilt)) for tilt in tilts)
    return float((moved - plain).abs().max())


@pytest.mark.parametrize("name", LOSSES)
def test_a_constant_per_prompt_changes_no_loss_that_may_be_tilted(name):
    if name in TILTABLE:
        assert constant_changes(name) < 1e-9
    else:  # control, and why they are refused
        assert constant_changes(name) > 0.01


@pytest.mark.parametrize("name", PER_TOKEN_LOSSES)
def test_a_loss_a_token_takes_no_weight(name):
    with pytest.raises(ValueError, match="needs weight=1"):
        loss_of(name, weight=0.5).per_pair(random_pairs())


FALLS_UNTIL = {
    "exo_pair": math.log((1 - SMOOTHING) / SMOOTHING) / BETA,  # where sigmoid(margin) is 1 - label_smoothing
    "ipo": 1 / (2 * BETA),
}
"""The difference of log-ratios that these losses aim at, nats; the others fall for ever."""


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_falls_as_the_policy_parts_the_pair(name):
    """Discopop is the exception its authors describe: it rises in a narrow band around a margin of 0."""
    differences = torch.linspace(-30, 30, 1201, dtype=torch.float64)
    zero, one = torch.zeros_like(differences), torch.ones_like(differences)
    losses = loss_of(name).per_pair(PairLogps(differences, zero, zero, zero, one, one))
    steps = losses.diff()
    target = FALLS_UNTIL.get(name, math.inf)
    falling, rising = differences[1:] <= target, differences[:-1] >= target
    if name == "discopop":
        near = (BETA * differences[1:]).abs() < 0.5
        assert (steps[near] > 0).any()
        falling &= ~near
    assert (steps[falling] <= 0).all()
    assert (steps[rising] > 0).all()
    assert losses[0] > losses[600] + 0.1


@pytest.mark.parametrize("name", LOSSES)
def test_every_setting_with_an_effect_has_one(name):
    pairs = random_pairs(spread=1.0)
    plain = loss_of(name).per_pair(pairs)
    assert not torch.allclose(loss_of(name, beta=2 * BETA).per_pair(pairs), plain)
    smoother = PreferenceLoss(name, BETA, label_smoothing=2 * SMOOTHING).per_pair(pairs)
    assert torch.allclose(smoother, plain) is (name not in SMOOTHED_LOSSES)
    if name in TILTABLE:
        assert not torch.allclose(loss_of(name, weight=0.5).per_pair(pairs), plain)


@pytest.mark.parametrize("others", [[0.5], [0.3, 0.2]])
def test_modpo_is_dpo_against_the_tilted_reference(others):
    """Eq. 11 as it is written, and as training takes it; rewards of other magnitudes than the log-ratios."""
    pairs, weight = random_pairs(spread=2.0), 0.5
    weights_M = torch.tensor(others, dtype=torch.float64)
    rewards_BM = 3 * torch.randn(400, len(others), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    gaps_PM = rewards_BM[:200] - rewards_BM[200:]
    written = modpo(pairs.differences_P, gaps_PM, weight=weight, weights_M=weights_M, beta=BETA)
    tilts = reward_tilt(rewards_BM, weights_M=weights_M, beta=BETA).chunk(2)
    loss = loss_of("sigmoid", weight=weight)
    torch.testing.assert_close(loss.per_pair(pairs.tilted(*tilts)), written, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(loss.per_pair(pairs), written)  # control: the rewards matter


def test_modpo_of_one_pair_by_hand():
    """beta/w = 0.4, D log-ratio 2, D r = 1.5 at a weight of 0.25: 0.4 * 2 - 1.5 * 0.25 / 0.75 = 0.3."""
    got = modpo(torch.tensor([2.0]), torch.tensor([[1.5]]), weight=0.75, weights_M=torch.tensor([0.25]), beta=0.3)
    assert float(got) == pytest.approx(math.log(1 + math.exp(-0.3)))
    assert float(dpo(torch.tensor([0.3]))) == pytest.approx(float(got))


def test_regression_losses_by_hand():
    residuals = torch.tensor([-3.0, -0.5, 0.0, 2.0], dtype=torch.float64)
    assert squared(residuals).tolist() == [9.0, 0.25, 0.0, 4.0]
    assert huber(residuals, threshold=2.0).tolist() == [8.0, 0.25, 0.0, 4.0]
    assert clipped(residuals, threshold=2.0).tolist() == [4.0, 0.25, 0.0, 4.0]


def test_all_pairs_of_a_group_cost_its_responses_once():
    """Mean over all pairs of (d_i - d_j)^2 is 2/(n - 1) sum_i (d_i - mean d)^2, whatever is added to all of a group."""
    d = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    first, second = torch.combinations(torch.arange(5), 2).T
    log_ratios, tilts = 3 * d + 7, 3 * d + 7 - d  # any parts that differ by d
    zeros = torch.zeros(len(first), dtype=torch.float64)
    pairs = PairLogps(log_ratios[first], log_ratios[second], zeros, zeros, zeros, zeros)
    losses = PreferenceLoss("squared", 1.0).per_pair(pairs.tilted(tilts[first], tilts[second]))
    grouped = 2 / 4 * ((d - d.mean()) ** 2).sum()
    assert float(losses.mean()) == pytest.approx(float(grouped), abs=1e-9)
    assert float(losses[1:].mean()) != pytest.approx(float(grouped), abs=1e-3)  # control: every pair counts


@pytest.mark.parametrize("loss", REGRESSION_LOSSES)
def test_a_regression_takes_no_label(loss):
    residuals = torch.linspace(-4, 4, 33, dtype=torch.float64)
    zeros = torch.zeros_like(residuals)
    this_way, other_way = PairLogps(residuals, *[zeros] * 5), PairLogps(zeros, residuals, *[zeros] * 4)
    one = PreferenceLoss(loss, 0.7, threshold=1.5)
    assert one.per_pair(this_way).equal(one.per_pair(other_way))
    assert one.per_pair(this_way).max() > 0
