"""Settings that were typed and change nothing are named, the others are not."""

import pytest

from alignlab.config.effects import without_effect
from alignlab.config.identity import run_folder

CLASSIFIER = ["algorithm=reward_model", "algorithm.kind=classifier"]
ON_DATA = ["model=scratch", "dataset=pku_saferlhf"]


@pytest.mark.parametrize(
    ("overrides", "idle"),
    [
        (["algorithm=dpo", "w=0.3"], "w=0.3: has no effect on algorithm=dpo"),
        (["algorithm=sft", "weights=penalty"], "weights=penalty: has no effect on algorithm=sft"),
        (["algorithm=dpo", "reward=gold"], "reward=gold: has no effect on algorithm=dpo"),
        (["w=1", "algorithm.rewards.safer.beta=0.2"], "has no effect at w=1, where no other objective weighs"),
        (["algorithm=evaluate", "trainer.max_steps=3"], "trainer.max_steps=3: has no effect on algorithm=evaluate"),
        (["target.safer=-0.5"], "target.safer=-0.5: has no effect on algorithm=modpo"),
        (["algorithm=front", "peft.r=4"], "peft.r=4: has no effect on algorithm=front"),
        ([*ON_DATA, "generator.samples=3"], "has no effect on dataset=pku_saferlhf, whose metrics need no samples"),
        (["trainer.max_steps=3", "trainer.num_train_epochs=2"], "has no effect with trainer.max_steps=3"),
        (
            ["algorithm=raco", "hardware.nodes=2"],
            "hardware.nodes=2: has no effect on algorithm=raco, which trains on one process",
        ),
        (
            ["algorithm=raco", "hardware.fsdp=true", "hardware=gpus_2"],
            "hardware.fsdp=true: has no effect on algorithm=raco, which trains on one process",
        ),
        (["algorithm=sft", "trainer.sets_per_step=4"], "trainer.sets_per_step=4: has no effect on algorithm=sft"),
        (
            [*CLASSIFIER, "trainer.sets_per_step=4"],
            "trainer.sets_per_step=4: has no effect with algorithm.kind=classifier",
        ),
        (["hydra/launcher=basic"], "hydra/launcher=basic: has no effect without -m"),
    ],
)
def test_named_once(runs_of, overrides, idle):
    (line,) = without_effect(runs_of(*overrides), overrides, is_sweep=False)
    assert idle in line


@pytest.mark.parametrize(
    "overrides",
    [
        ["w=0.3"],
        ["w=0.3", "reward=gold", "algorithm.rewards.safer.kind=gold"],
        ["trainer.num_train_epochs=2"],
        ["algorithm=evaluate", "algorithm.adapter=owner/name", "trainer.per_device_eval_batch_size=4"],
        ["algorithm=evaluate", "generator.samples=3"],
        ["algorithm=front", "target.safer=-0.5"],
        ["algorithm=modpo_conditioned", "target={safer: -0.5}"],
        ["algorithm.loss_type=robust", "algorithm.label_smoothing=0.1"],
        ["algorithm=dpo", "peft.r=4", "seed=2", "hydra.run.dir=x"],
        ["algorithm=sft", "hardware.fsdp=true", "hardware=gpus_2", "hardware.nodes=2"],
        [*CLASSIFIER, "hardware.fsdp=true", "hardware=gpus_2", "hardware.nodes=2"],
    ],
)
def test_what_has_an_effect_is_not_named(runs_of, overrides):
    assert without_effect(runs_of(*overrides), overrides, is_sweep=False) == []


def test_a_sweep_names_the_w_of_a_target(runs_of):
    overrides = ["w=0.3,0.7", "target.safer=-0.5"]
    runs = runs_of(*overrides, multirun=True)
    assert without_effect(runs, overrides, is_sweep=True) == []
    assert [run.target for run in runs] == [{"safer": -0.5}] * 2
    assert {run_folder(run) for run in runs} == {run_folder(run) for run in runs_of(overrides[0], multirun=True)}


def test_an_effect_on_one_run_of_a_sweep_is_an_effect(runs_of):
    overrides = ["algorithm=dpo,modpo", "w=0.3"]
    assert without_effect(runs_of(*overrides, multirun=True), overrides, is_sweep=True) == []
