"""Several scorers of one objective joined: as scorer, as what ranks pairs, and as the reward that is taught."""

import json

import pytest
import torch
from hydra import compose

from alignlab.config.hydra.compose import composing, run_config
from alignlab.config.identity import run_folder
from alignlab.data.worlds import toy
from alignlab.errors import ConfigError
from alignlab.rewards.joined import MEMBER_STATISTICS, JoinedReward, joined
from alignlab.rewards.length import LengthReward
from support.commands import alignlab, assert_refused, result, run_here

JOINED = (
    "scorers.better.join=uncertainty",
    "scorers.better.members.tokens.kind=length",
    "scorers.better.members.words.kind=length",
    "scorers.better.members.words.unit=words",
    "scorers.better.members.words.scale=7",
)


def test_joins_by_hand():
    scores_KN = torch.tensor([[1.0, 0.0], [3.0, 0.0]], dtype=torch.float64)
    assert joined(scores_KN, "mean").tolist() == [2, 0]
    assert joined(scores_KN, "min").tolist() == [1, 0]
    assert joined(scores_KN, "uncertainty").tolist() == [1, 0]  # deviation 1 about 2


class Scaled(LengthReward):
    """Another unit and another zero."""

    def _by_tokens(self, rows):
        return 5 + 100 * super()._by_tokens(rows)


@pytest.mark.parametrize("join", ["mean", "min", "uncertainty"])
def test_units_of_members_do_not_count(base, encoded_rows, tmp_path, join):
    rows = [row for one in encoded_rows for row in (one, type(one)(one.prompt_ids, one.response_ids[1:], one.prompt))]
    words, tokens = (LengthReward(base.encoder, unit=unit, scale=1) for unit in ("words", "tokens"))
    scaled = Scaled(base.encoder, unit="tokens", scale=1)
    scaled.id = "scaled"
    one, other = (
        JoinedReward("better", "scorers.better", {"a": words, "b": second}, join).scaled(rows, tmp_path / second.id)
        for second in (tokens, scaled)
    )
    torch.testing.assert_close(one.score_encoded(rows), other.score_encoded(rows), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(tokens.score_encoded(rows), scaled.score_encoded(rows)), "control"
    again = JoinedReward("better", "k", {"a": words, "b": tokens}, join).scaled([], tmp_path, [tmp_path / tokens.id])
    assert again.id == one.id, "statistics of an earlier run are taken over"


def test_a_changed_number_of_the_members_units_is_seen(base, encoded_rows, tmp_path):
    rows = [row for one in encoded_rows for row in (one, type(one)(one.prompt_ids, one.response_ids[1:], one.prompt))]
    words = LengthReward(base.encoder, unit="words", scale=1)
    one = JoinedReward("better", "scorers.better", {"words": words}, "mean").scaled(rows, tmp_path)
    file = tmp_path / MEMBER_STATISTICS
    kept, mean = file.read_text(), f'"mean": {one.statistics["words"].mean}'
    assert mean in kept
    file.write_text(kept.replace(mean, '"mean": 0.5'))
    with pytest.raises(ConfigError, match=r"members\.json: .* was changed or damaged"):
        one.scaled(rows, tmp_path)
    file.write_text(kept)
    assert one.scaled([], tmp_path).id == one.id, "control"


def test_a_joined_scorer_ranks_teaches_and_scores(base, tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in toy.all_prompts()[:10]))
    model = ["model=hf", f"model.path={base.path}", "model.prompt_template=user: {raw_prompt} assistant: "]
    sizes = ["generator.max_new_tokens=40", "generator.samples=3", "generator.prompts=2", "dataset.pairs.samples=3"]
    training = ["trainer.max_steps=2", "trainer.per_device_train_batch_size=8", "trainer.max_length=80"]
    data = ["dataset=prompts", f"dataset.path={file}", "scorers.safer.kind=length", "scorers.safer.scale=0.5"]
    ended = alignlab(*model, *sizes, *training, *data, *JOINED, "algorithm=rebel", "w=0.5", cwd=tmp_path, small=())
    assert ended.returncode == 0, ended.stderr
    (pairs,) = tmp_path.glob("runs/pairs/*/*/*")
    (trained,) = tmp_path.glob("runs/rebel/*/*/*/*")
    kept = [json.loads((folder / "members.json").read_text())["better"] for folder in (pairs, trained)]
    assert kept[0] == kept[1], "one unit for pairs and training"
    reward = result(trained)["rewards"]["better"]
    assert reward["id"].startswith("joined:uncertainty:length:tokens:1:mean=")
    evaluated = [result(file.parent) for file in tmp_path.glob("runs/evaluate/*/*/*/result.json")]
    (policy,) = [one for one in evaluated if one["policy"]["algorithm"] == "rebel"]
    (reference,) = [one for one in evaluated if one["policy"]["algorithm"] == "reference"]
    assert policy["scorers"]["better"]["id"] == reference["scorers"]["better"]["id"], "one unit for all policies"
    assert policy["scorers"]["better"]["trained_on"]
    assert policy["metrics"]["better_gain"]["mean"] is not None
    (scores,) = pairs.glob("scores/better.jsonl")
    assert len(scores.read_text().splitlines()) >= 20


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["scorers.better.join=median", *JOINED[1:]], "scorers.better.join=median: "),
        (JOINED[:2], "scorers.better.members="),
        (
            [*JOINED, "scorers.better.kind=length"],
            "scorers.better.kind=length: is not read with scorers.better.members",
        ),
        (
            [*JOINED, "scorers.better.members.third.kind=guard", "scorers.better.members.third.path=x"],
            "scorers.better.members.third.kind=guard: may leave",
        ),
        ([*JOINED, "scorers.better.unit=words"], "scorers.better.unit=words: has no effect with scorers.better.join"),
        ([*JOINED, "scorers.better.members.tokens.unit=lines"], "scorers.better.members.tokens."),
        ([*JOINED, "scorers.better.members.third.kind=gold", "dataset=pku_saferlhf", "dataset.path=x"], ""),
    ],
)
def test_what_cannot_be_joined_is_refused(tmp_path, capfd, overrides, line):
    assert_refused(run_here(tmp_path, [], "algorithm=pairs", *overrides), capfd, line)


def test_members_and_join_are_part_of_what_pairs_are(tmp_path):
    def folder(*overrides):
        with composing():
            given = ["algorithm=pairs", *(f"+{one}" for one in JOINED[1:]), *overrides]
            return run_folder(run_config(compose("config", overrides=given)))

    assert folder() == folder("+scorers.better.join=mean") != folder("+scorers.better.join=min")
    assert folder() != folder("+scorers.better.members.third.kind=gold")
