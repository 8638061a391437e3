"""Rewards in the configuration: what is not given comes from the group or the kind's file, nothing is ignored."""

import pytest
import yaml

from alignlab.config.hydra.compose import load_run_config
from alignlab.config.identity import identity, resolve, run_folder
from alignlab.config.objectives import objectives_of, reward_of
from alignlab.config.plan import plan_of
from alignlab.config.roots import config_root
from alignlab.config.schema import REWARD_KINDS, ClassifierConfig, HttpConfig, ImplicitConfig, LengthConfig
from alignlab.errors import ConfigError
from alignlab.runs.folder import recording
from alignlab.runs.runner import make_run

SAFER = "algorithm.rewards.safer"


def safer(run_of, *overrides):
    return reward_of(run_of(*(f"{SAFER}.{item}" for item in overrides)), "safer").settings


def test_every_kind_has_a_file_and_every_file_a_kind():
    files = {path.stem: yaml.safe_load(path.read_text()) for path in (config_root("conf") / "reward").glob("*.yaml")}
    assert files.keys() == REWARD_KINDS.keys()
    for kind, settings in files.items():
        assert settings.pop("defaults")
        assert settings["kind"] == kind
        assert set(settings) == set(REWARD_KINDS[kind].__dataclass_fields__), "every key has its default in the file"


def test_what_is_not_given_comes_from_the_group(run_of):
    run = run_of("reward=classifier", "reward.max_length=99", f"{SAFER}.negate=true")
    found = reward_of(run, "safer").settings
    assert isinstance(found, ClassifierConfig)
    assert (found.max_length, found.negate) == (99, True)


def test_with_another_kind_it_comes_from_that_kinds_file(run_of):
    found = safer(run_of, "kind=length")
    assert found == LengthConfig(kind="length", normalise=False, unit="tokens", scale=1.0)
    found = safer(run_of, "kind=length", "unit=words", "scale=0.5")
    assert (found.unit, found.scale) == ("words", 0.5)


def test_an_objective_that_is_not_named_has_the_groups_reward(run_of):
    assert isinstance(reward_of(run_of(), "safer").settings, ImplicitConfig)
    assert isinstance(reward_of(run_of("reward=length"), "safer").settings, LengthConfig)


WRONG = {
    "kind=lenght": "algorithm.rewards.safer.kind=lenght: did you mean length?",
    "adapter=x kind=length": "algorithm.rewards.safer.adapter=x: has no effect with kind=length; choose one of",
    "kind=length beta=1": "algorithm.rewards.safer.beta=1: has no effect with kind=length",
    "scal=1 kind=length": "algorithm.rewards.safer.scal=1: did you mean scale?",
    "kind=length scale=long": "algorithm.rewards.safer.scale=long: must be a number",
    "kind=length scale=0": "algorithm.rewards.safer.scale=0.0: must be a finite number > 0",
    "kind=length unit=lines": "algorithm.rewards.safer.unit=lines: choose one of",
    "kind=length normalise=perhaps": "algorithm.rewards.safer.normalise=perhaps: must be true or false",
    "kind=classifier max_length=1.5": "algorithm.rewards.safer.max_length=1.5: must be a whole number",
    "kind=classifier template=none": "algorithm.rewards.safer.template='none': must contain {raw_prompt}",
    "kind=classifier dtype=int8": "algorithm.rewards.safer.dtype=int8: choose one of",
    "kind=beaver template=null": "algorithm.rewards.safer.template=None: must contain {raw_prompt}",
    "kind=beaver path=null": "algorithm.rewards.safer.path=null: must name a folder or a hub id",
    "kind=python function=null": "algorithm.rewards.safer.function=null: must name a function",
    "kind=http url=null": "algorithm.rewards.safer.url=None: must be text",
    "kind=http url=ftp://x/y": "algorithm.rewards.safer.url=ftp://x/y: must begin with http:// or https://",
    "kind=http workers=0": "algorithm.rewards.safer.workers=0: must be in 1..1000",
    "kind=http deadline_s=1": "algorithm.rewards.safer.deadline_s=1.0: must be at least",
    "beta=-1": "algorithm.rewards.safer.beta=-1.0: must be a finite number > 0",
}


@pytest.mark.parametrize(("given", "said"), WRONG.items(), ids=list(WRONG))
def test_a_wrong_key_or_value_is_named_with_its_objective(runs_of, given, said):
    with pytest.raises(ConfigError) as refused:
        runs_of(*(f"{SAFER}.{item}" for item in given.split()))
    text = str(refused.value)
    assert said in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["reward=length", "reward.beta=1"], "reward.beta: no such key with reward=length; other choices have it"),
        (["reward.kind=length"], "reward.kind=length: choose it by reward=NAME"),
        (["algorithm.rewards=3"], "algorithm.rewards=3: is a group of settings"),
        (["++algorithm.rewards.safer=length"], "algorithm.rewards.safer=length: is a group of settings"),
    ],
)
def test_the_group_is_as_strict(runs_of, overrides, said):
    with pytest.raises(ConfigError) as refused:
        runs_of(*overrides)
    assert said in str(refused.value)


def test_a_password_in_an_address_is_never_shown(runs_of):
    with pytest.raises(ConfigError) as refused:
        runs_of(f"{SAFER}.kind=http", f"{SAFER}.url=http://me:hunter2@host/score")
    assert "hunter2" not in str(refused.value)


def test_a_runs_config_comes_back_with_its_rewards(run_of, tmp_path):
    run = run_of("w=0.3", "reward=classifier", f"{SAFER}.kind=http", f"{SAFER}.url=http://host/score")
    with recording(tmp_path, plan_of(run), make_run):
        pass
    again = load_run_config(tmp_path / "config.json")
    assert again == run
    assert isinstance(again.algorithm.rewards["safer"], HttpConfig)
    assert run_folder(again) == run_folder(run)


SAME = ["workers=9", "batch_size=3", "timeout_s=50", "deadline_s=1000", "backoff_s=2", "api_key_env=OTHER_KEY"]
OTHER = ["url=http://other/score", "version=v2", "negate=true", "normalise=true"]


@pytest.mark.parametrize("change", [*SAME, *OTHER])
def test_how_an_endpoint_is_asked_is_no_part_of_what_a_run_is(run_of, change):
    plain = run_folder(run_of(f"{SAFER}.kind=http"))
    assert (run_folder(run_of(f"{SAFER}.kind=http", f"{SAFER}.{change}")) == plain) is (change in SAME)


def test_another_reward_is_another_run_and_the_check_is_not(run_of):
    folders = {run_folder(run_of(f"{SAFER}.kind={kind}")) for kind in ("length", "gold", "python", "classifier")}
    assert len(folders | {run_folder(run_of())}) == 5
    assert run_folder(run_of("algorithm.check_rewards=false")) == run_folder(run_of())


def test_a_program_counts_with_the_package_that_brings_it(run_of):
    assert identity(resolve(run_of(f"{SAFER}.kind=python")))["rewards"]["safer"]["version"] == "alignlab"


def test_a_classifier_is_no_other_for_another_beta(run_of):
    classifier = ("algorithm=reward_model", "algorithm.kind=classifier")
    assert run_folder(run_of(*classifier)) == run_folder(run_of(*classifier, "algorithm.beta=7"))
    assert run_folder(run_of(*classifier)) != run_folder(run_of("algorithm=reward_model"))
    assert run_folder(run_of(*classifier)) != run_folder(run_of(*classifier, "algorithm.full=true"))
    assert run_folder(run_of(*classifier)) != run_folder(run_of(*classifier, "peft.r=3"))
    full = (*classifier, "algorithm.full=true")
    assert run_folder(run_of(*full)) == run_folder(run_of(*full, "peft.r=3"))


UNLABELLED = "dataset.objectives.safer.label=null"


def test_an_objective_without_labels_can_be_a_reward_only(run_of, runs_of):
    run = run_of(UNLABELLED, f"{SAFER}.kind=length")
    assert objectives_of(run).trained == "better"
    assert list(plan_of(run).rewards) == ["safer"]
    assert objectives_of(run_of("algorithm=reward_model", UNLABELLED)).trained == "better", "the first with labels"
    with pytest.raises(ConfigError, match=r"^algorithm\.objective=safer: .* has no labels of it, so it"):
        runs_of("algorithm=dpo", "algorithm.objective=safer", UNLABELLED)
    with pytest.raises(ConfigError, match=r"^dataset\.objectives.* label"):
        runs_of("dataset.objectives.better.label=null", UNLABELLED)


def test_an_evaluation_trains_on_no_reward(run_of):
    assert plan_of(run_of("algorithm=evaluate", "scorers.safer.kind=length")).rewards == {}
