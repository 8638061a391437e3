import torch

from alignlab.config.schema import PeftConfig
from alignlab.engine.cache.scores import ScoreCache
from alignlab.engine.scoring.logps import response_logps
from alignlab.models.adapters import new_adapter, with_adapter
from alignlab.rewards.implicit import ImplicitReward, reference_logps
from alignlab.rewards.normalise import without_unit

PEFT = PeftConfig(r=4, alpha=4.0, dropout=0.0, target_modules="all-linear")


def saved_adapter(base, folder, *, scale):
    model = new_adapter(base.model, PEFT, seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=scale) if scale else parameter.data.zero_()
    model.save_pretrained(folder)
    model.unload()
    return folder


def reward(base, folder, tmp_path, beta=0.5):
    return ImplicitReward(base, folder, beta=beta, cache=ScoreCache(tmp_path / "c"), batch_size=8, name="safer")


def test_an_untrained_adapter_rewards_nothing(base, encoded_rows, tmp_path):
    folder = saved_adapter(base, tmp_path / "a", scale=0)
    assert reward(base, folder, tmp_path).score_encoded(encoded_rows).abs().max() < 1e-5


def test_the_reward_is_beta_times_the_log_ratio(base, encoded_rows, tmp_path):
    folder = saved_adapter(base, tmp_path / "a", scale=0.1)
    before = response_logps(base.model, encoded_rows, batch_size=8, label="")
    half = reward(base, folder, tmp_path, beta=0.5).score_encoded(encoded_rows)
    whole = reward(base, folder, tmp_path, beta=1.0).score_encoded(encoded_rows)
    torch.testing.assert_close(2 * half, whole)
    assert whole.abs().max() > 0.01
    after = response_logps(base.model, encoded_rows, batch_size=8, label="")
    assert after.equal(before), "the base model must be itself again after its adapter scored"


def test_beta_tells_rewards_apart_and_is_no_part_of_what_is_kept(base, encoded_rows, tmp_path):
    folder = saved_adapter(base, tmp_path / "a", scale=0.1)
    half, whole = (reward(base, folder, tmp_path, beta=beta) for beta in (0.5, 1))
    assert half.id != whole.id == reward(base, folder, tmp_path, beta=1.0).id
    assert without_unit(half.id) == without_unit(whole.id), "the same policy is behind them"
    half.score_encoded(encoded_rows)
    kept = {file.name for file in (tmp_path / "c").glob("*.parquet")}
    whole.score_encoded(encoded_rows)
    assert len(kept) == 2, "of the reference and of the policy"
    assert {file.name for file in (tmp_path / "c").glob("*.parquet")} == kept
    assert whole.cache.counts["safer"].computed == 0


def test_another_adapter_does_not_take_the_first_ones_scores(base, encoded_rows, tmp_path):
    first = reward(base, saved_adapter(base, tmp_path / "a", scale=0.1), tmp_path).score_encoded(encoded_rows)
    second = reward(base, saved_adapter(base, tmp_path / "b", scale=0.3), tmp_path).score_encoded(encoded_rows)
    assert not torch.allclose(first, second)


def test_another_precision_does_not_take_the_first_ones_scores(base, encoded_rows, tmp_path):
    import dataclasses

    cache = ScoreCache(tmp_path / "c")
    plain = reference_logps(base, encoded_rows, cache=cache, batch_size=8)
    rough = reference_logps(dataclasses.replace(base, autocast=True), encoded_rows, cache=cache, batch_size=8)
    assert not plain.equal(rough)
    torch.testing.assert_close(plain, rough, rtol=2e-2, atol=0.5)


def test_the_adapter_is_attached_once_for_all_blocks_of_rows_and_not_for_known_ones(
    base, encoded_rows, tmp_path, monkeypatch
):
    attached = []

    def counted(*given, **named):
        attached.append(given)
        return with_adapter(*given, **named)

    monkeypatch.setattr("alignlab.rewards.implicit.with_adapter", counted)
    folder = saved_adapter(base, tmp_path / "a", scale=0.1)
    whole = reward(base, folder, tmp_path / "whole").logps(encoded_rows)
    monkeypatch.setattr("alignlab.engine.cache.scores.ROWS_A_CLAIM", 2)
    assert len(encoded_rows) > 2
    in_blocks = reward(base, folder, tmp_path / "blocks")
    torch.testing.assert_close(in_blocks.logps(encoded_rows), whole)
    assert len(attached) == 2, "once for each of the two"
    in_blocks.logps(encoded_rows)
    assert len(attached) == 2
