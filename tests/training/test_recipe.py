"""A recipe reaches torchrun's workers through JSON, unchanged."""

import json

import pytest

from alignlab.config.hydra.compose import composing, read_command, register, run_config
from alignlab.config.plan import plan_of
from alignlab.config.recipe import TrainingRecipe


def composed(*overrides):
    register()
    with composing():
        (job,) = read_command("config", overrides, multirun=False).jobs()
        return run_config(job)


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=tiny"],
        ["model=scratch", "dataset=pku_saferlhf"],
        ["model=hf", "model.path=some/model", "peft.target_modules=[q_proj,v_proj]"],
    ],
)
def test_a_recipe_survives_json(overrides):
    recipe = plan_of(composed(*overrides)).recipe
    assert TrainingRecipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_a_changed_recipe_is_another():
    """Control: equality looks at every part."""
    assert plan_of(composed("trainer.max_steps=3")).recipe != plan_of(composed("trainer.max_steps=4")).recipe


@pytest.mark.parametrize(
    ("overrides", "held"),
    [
        (["algorithm=dpo"], (3, 99)),
        (["algorithm=sft"], (None, None)),
        (["algorithm=reward_model", "algorithm.kind=classifier"], (None, None)),
    ],
)
def test_ranked_sets_are_left_out_where_no_pairs_are_trained_on(overrides, held):
    """Else the processes of such a training would share out sets that it does not have."""
    given = ["trainer.sets_per_step=3", "trainer.max_tokens_per_forward=99"]
    trainer = plan_of(composed(*overrides, *given)).recipe.trainer
    assert (trainer.sets_per_step, trainer.max_tokens_per_forward) == held
