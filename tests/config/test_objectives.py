"""Which objective is trained on: by name, or by weight."""

import pytest

from alignlab.config.identity import identity, resolve
from alignlab.config.objectives import objectives_of
from alignlab.config.plan import plan_of
from alignlab.errors import ConfigError


@pytest.mark.parametrize(
    ("w", "trained"),
    [("0", "safer"), ("0.02", "safer"), ("0.49", "safer"), ("0.5", "better"), ("1", "better"), ("[0.1,0.9]", "safer")],
)
def test_the_heaviest_is_trained_on_and_the_first_of_equals(run_of, w, trained):
    found = objectives_of(run_of(f"w={w}"))
    assert found.trained == trained
    assert list(found.weights) == ["better", "safer"]
    assert trained not in plan_of(run_of(f"w={w}")).rewards


def test_w_is_the_first_objectives_weight_whichever_is_trained_on(run_of):
    assert objectives_of(run_of("w=0.3")).plain == 0.3
    assert objectives_of(run_of("w=0.3", "algorithm.objective=safer")).weights == {"better": 0.7, "safer": 0.3}


def test_a_named_reward_stays_a_reward(run_of):
    given = ["w=0.2", "algorithm.rewards.safer.kind=gold"]
    assert objectives_of(run_of(*given)).trained == "better"
    assert objectives_of(run_of(*given, "algorithm.rewards.better.kind=gold")).trained == "safer", (
        "unless all are named"
    )


def test_a_front_of_runs_on_prompts_needs_no_scorer(run_of):
    assert plan_of(run_of("algorithm=front", "dataset=prompts", "dataset.path=x.jsonl")).objectives.first == "better"
    with pytest.raises(ConfigError, match=r"dataset=prompts: holds prompts and no responses"):
        objectives_of(run_of("dataset=prompts", "dataset.path=x.jsonl"))


def test_dpo_has_no_weights_to_go_by(runs_of):
    with pytest.raises(ConfigError, match=r"algorithm\.objective=heaviest: no such objective"):
        runs_of("algorithm=dpo", "algorithm.objective=heaviest")


@pytest.mark.parametrize(("w", "made"), [("0", "safer"), ("1", "better")])
def test_an_end_of_the_front_is_the_reward_that_other_points_read(run_of, w, made):
    same = plan_of(run_of(f"w={w}")).same_as
    assert same is not None
    assert same.objectives.trained == made
    middle = plan_of(run_of("w=0.3" if made == "better" else "w=0.7")).rewards[made].made_by
    assert middle is not None
    assert same.folder == middle.folder
    assert plan_of(run_of(f"w={w}", "algorithm.loss_type=hinge")).same_as is None, "control: another loss"


def test_rebel_trains_on_no_labels_and_weighs_every_reward(run_of):
    run = run_of("algorithm=rebel", "w=0.3")
    assert objectives_of(run).trained == ""
    assert objectives_of(run).others == {"better": 0.3, "safer": 0.7}
    alone = plan_of(run_of("algorithm=rebel", "w=1"))
    assert list(alone.rewards) == ["better"], "as a run that never heard of the other"
    assert all(reward["normalise"] for reward in identity(resolve(run))["rewards"].values())
    raw = run_of("algorithm=rebel", "w=0.3", "algorithm.normalise=false")
    assert not any(reward["normalise"] for reward in identity(resolve(raw))["rewards"].values())


def test_a_mixture_of_policies_takes_no_scorer_for_a_reward(run_of, tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "a b"}\n')
    scorers = ["scorers.better.kind=length", "scorers.safer.kind=length", "scorers.safer.scale=1"]
    given = ["model=scratch", "dataset=prompts", f"dataset.path={file}", *scorers, "w=0.3"]
    mixed = plan_of(run_of("algorithm=logit_mix", *given)).rewards
    assert {name: source.settings.kind for name, source in mixed.items()} == {"better": "implicit", "safer": "implicit"}
    assert all(source.made_by is not None for source in mixed.values()), "trained on the policy's own pairs"
    modpo = plan_of(run_of("algorithm=modpo", *given)).rewards
    assert {source.settings.kind for source in modpo.values()} == {"length"}, "control: modpo takes the scorer"
