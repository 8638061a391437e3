"""One table says what each algorithm uses: a key is warned of if and only if it leaves the run folder as it is."""

import copy
import dataclasses

import pytest
from hydra import compose
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from alignlab.config.effects import without_effect
from alignlab.config.hydra.compose import composing, register, run_config
from alignlab.config.identity import run_folder
from alignlab.config.schema import VARIANTS, DpoConfig, EvaluateConfig
from alignlab.config.uses import NOT_IN_RUN_ID

register()
START = {name: ["algorithm.adapter=owner/name"] for name in ("merge", "export")}
"""What an algorithm needs to be composed at all."""
ALGORITHMS = sorted(VARIANTS["algorithm"])
OTHER = {
    "model.kind": None,  # chosen by model=NAME; the value alone is refused or means another schema
    "dataset.kind": None,
    "algorithm.name": None,
    "algorithm.kind": "classifier",
    "algorithm.profile": "paper",
    "algorithm.turn": "reinject_header",
    "algorithm.responses": "both",
    "algorithm.pairs": "adjacent",
    "algorithm.sources": "[owner/other]",
    "algorithm.cuts": "tokens",
    "algorithm.safe": "data",
    "algorithm.filter": "requests",
    "algorithm.export_at": "[0.2]",
    "algorithm.objective": "safer",
    "algorithm.loss_type": "hinge",
    "algorithm.loss": "huber",
    "algorithm.num_shards": "2",
    "algorithm.shard": None,  # must be below num_shards
    "algorithm.k": "[3,4]",
    "algorithm.layers": "[0.5]",
    "algorithm.pooling": "last",
    "algorithm.length_term": "none",
    "algorithm.full": None,  # with a classifier only
    "algorithm.label_smoothing": None,  # with some losses only
    "algorithm.near_duplicates": "0.5",
    "algorithm.max_length": "99",
    "algorithm.dtype": "bfloat16",
    "algorithm.labels": None,  # with compare only, or of two kinds
    "algorithm.select": "all",
    "algorithm.level": "sequence",
    "algorithm.adapter": "owner/other",
    "generator.kind": None,
    "judge.kind": None,
    "reward.kind": None,
    "reward.adapter": "owner/other",
    "reward.beta": "0.5",
    "weights.scheme": "penalty",
    "hardware.device": "cuda",
    "hardware.fsdp": None,  # with several GPUs only
    "tracker.kind": "local",
    "model.prompt_template": "ask {raw_prompt} answer",
    "model.architecture.num_attention_heads": "2",
    "model.architecture.hidden_size": "128",
    "model.pretraining.lr_scheduler_type": "cosine",
    "trainer.lr_scheduler_type": "linear",
    "trainer.max_steps": "7",
    "peft.target_modules": "[q_proj]",
    "dataset.k": "[3]",
    "algorithm.held_out": None,  # must be files
    "algorithm.merge": None,
    "algorithm.compare": None,
    "algorithm.formats": "[card]",
    "algorithm.verdicts": "[elsewhere]",
    "algorithm.license": "mit",
    "algorithm.push": "owner/name",
    "algorithm.runs": "[elsewhere]",
    "dataset.use": "[better,brief]",
    "dataset.split": "test",
    "dataset.eval_split": None,  # the toy has test alone
    "dataset.on_long": "cut",
    "dataset.keep": "consistent",
    "dataset.split_by": "prompt",
    "dataset.dev_share": "0.1",
    "w": "0.25",
}
"""Another value of a key that is no number; None where there is none in this setting."""


def keys_of(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from keys_of(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def other_value(algorithm, key, value):
    if key == "algorithm.objective" and algorithm == "reward_model":
        return "better"  # its default is the second objective
    if key in OTHER:
        return OTHER[key]
    if isinstance(value, bool):
        return str(not value).lower()
    if isinstance(value, int | float):
        return str(value + 1) if isinstance(value, int) else str(value * 0.5 or 0.25)
    if value is None:
        return "5"
    if isinstance(value, list):
        return "[one,two]"
    return None if isinstance(value, dict) else f"{value}x"


def composed(*overrides):
    with composing():
        return run_config(compose("config", overrides=list(overrides)))


def judged(algorithm):
    """(key, warned, same folder) of every key that can be changed. One composition serves all, as in a sweep."""
    with composing():
        job = compose("config", overrides=[f"algorithm={algorithm}", *START.get(algorithm, [])])
        own, parser = run_folder(run_config(job)), OverridesParser.create()
        for key, value in keys_of(OmegaConf.to_container(job, resolve=True)):
            other = other_value(algorithm, key, value)
            if other is None:
                continue
            override = f"{key}={other!r}" if " " in other else f"{key}={other}"
            changed = copy.deepcopy(job)
            ConfigLoaderImpl._apply_overrides_to_config(parser.parse_overrides([override]), changed)
            config = run_config(changed)
            yield key, bool(without_effect([config], [override], is_sweep=False)), run_folder(config) == own


def operational(key):
    return any(key == name or key.startswith(f"{name}.") for name in NOT_IN_RUN_ID)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_warned_of_if_and_only_if_the_folder_stays(algorithm):
    found = list(judged(algorithm))
    assert len(found) > 70, "the walk sees the whole configuration"
    wrong = [
        key
        for key, warned, same in found
        if (warned != same and not operational(key)) or (operational(key) and not same)
    ]
    assert wrong == []


def test_a_table_that_is_wrong_is_seen(monkeypatch):
    """Control. The walk sees consistency; test_effects.py and test_identity.py hold the table against the jobs."""
    uses = DpoConfig.uses
    without_beta = {key: condition for key, condition in uses.reads.items() if key != "algorithm"}
    monkeypatch.setattr(DpoConfig, "uses", dataclasses.replace(uses, reads=without_beta))
    found = {key: (warned, same) for key, warned, same in judged("dpo")}
    assert found["algorithm.beta"] == (True, True)


GRADED = "+scorers.safer.kind=length"
PROBES = ["algorithm=pairs", "+scorers.better.kind=probe", "+scorers.safer.kind=probe"]
"""Scorers that are made, without the trainer."""


@pytest.mark.parametrize(
    "overrides",
    [
        ["algorithm=sft", "generator.samples=3"],
        ["algorithm=evaluate", "peft.r=4"],
        ["algorithm=audit", "w=1", "generator.samples=3"],
        ["algorithm=merge", "algorithm.adapter=owner/name", "dataset=toy_three"],
        ["algorithm=synthesis", "generator.samples=3"],
        ["algorithm=course_correction", "dataset.pairs=3"],
        ["w=1", "reward=gold"],
        *(["algorithm=" + name, GRADED, "dataset.benign=x.csv"] for name in ("best_of_n", "preview")),
        ["algorithm=logit_mix", "algorithm.level=sequence", GRADED, "dataset.text=x.txt"],
        [*PROBES, "trainer.learning_rate=1e-5"],
        [*PROBES, "trainer.num_train_epochs=2"],
        [*PROBES, "peft.r=4"],
    ],
)
def test_idle_settings_do_not_run_finished_work_again(overrides):
    config, changed = composed(*overrides[:-1]), composed(*overrides)
    assert run_folder(changed) == run_folder(config)
    assert without_effect([changed], overrides[-1:], is_sweep=False)


def test_a_scorer_that_is_trained_reads_the_trainer():
    """Control of PROBES."""
    start = ["algorithm=pairs", "+scorers.better.kind=probe", "+scorers.safer.kind=classifier"]
    assert run_folder(composed(*start)) != run_folder(composed(*start, "trainer.learning_rate=1e-5"))


def test_with_steps_given_epochs_are_idle():
    start = ["algorithm=dpo", "trainer.max_steps=3"]
    assert run_folder(composed(*start)) == run_folder(composed(*start, "trainer.num_train_epochs=2"))
    assert run_folder(composed("algorithm=dpo")) != run_folder(composed("algorithm=dpo", "trainer.num_train_epochs=2"))


def test_every_algorithm_declares_what_it_uses():
    for name, schema in VARIANTS["algorithm"].items():
        assert schema.uses.reads, name
    assert EvaluateConfig.uses is not DpoConfig.uses
