"""The command that a run's settings come from: composed again it gives the same settings."""

import json
import shlex
from dataclasses import asdict

import pytest
from hydra import compose

from alignlab.config.hydra.command import commands_of
from alignlab.config.hydra.compose import composing, register, run_config

register()


def record_of(*overrides):
    with composing():
        return json.loads(json.dumps(asdict(run_config(compose("config", overrides=list(overrides))))))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([], []),
        (["w=0.1", "seed=3"], ["w=0.1", "seed=3"]),
        (["algorithm=dpo", "algorithm.beta=0.3"], ["algorithm=dpo", "algorithm.beta=0.3"]),
        (["algorithm=evaluate", "algorithm.adapter='a b,c=[d]'"], None),
        (["algorithm=course_correction", "judge=openai", "algorithm.k=[2,4]", "judge.model=some/model"], None),
        (["dataset=pku_saferlhf", "model=scratch", "dataset.path=rows.jsonl", "dataset.max_rows=7"], None),
        (["model=hf", r"model.path='/models/it\'s'", "peft.r=4", "trainer.max_steps=9"], None),
        (["+algorithm.rewards.safer.kind=implicit", "+algorithm.rewards.safer.adapter=owner/name"], None),
        (["tracker=local", "hardware.device=cpu", "force=true", "paths.runs=/elsewhere"], ["tracker=local"]),
    ],
    ids=lambda value: " ".join(value) if value else str(value),
)
def test_the_command_says_the_same(overrides, said):
    record = record_of(*overrides)
    (command,) = commands_of([record])
    assert command is not None
    start, *found = shlex.split(command)[2:]
    assert start == "alignlab"
    if said is not None:
        assert sorted(found) == sorted(said)
    left_out = ("paths", "force")
    assert {**record_of(*found), **dict.fromkeys(left_out)} == {**record, **dict.fromkeys(left_out)}


def test_what_has_no_effect_is_left_out():
    """The reference has no w, and is not trained."""
    typed = ["algorithm=evaluate", "generator.top_p=0.9"]
    (command,) = commands_of([record_of(*typed, "w=0.1", "trainer.learning_rate=0.5")])
    assert command == shlex.join(["python", "-m", "alignlab", *typed])


def test_settings_that_no_command_says_have_none():
    record = record_of()
    lacking = {key: value for key, value in record.items() if key != "seed"}
    assert commands_of([lacking, {}, {**record, "model": {"kind": "gone"}}, record])[:3] == [None] * 3
    assert commands_of([record]) == ["python -m alignlab"]


def test_a_command_that_is_known_is_not_composed_again(monkeypatch):
    from alignlab.config.hydra import command

    calls = []
    monkeypatch.setattr(command, "compose", lambda *given, **named: calls.append(given) or compose(*given, **named))
    records = [record_of("w=0.15", f"seed={seed}") for seed in (401, 402)]
    first = commands_of(records)
    assert first == ["python -m alignlab w=0.15 seed=401", "python -m alignlab w=0.15 seed=402"]
    composed = len(calls)
    assert composed, "the first time it is"
    assert commands_of(records) == first
    assert len(calls) == composed
    assert commands_of([record_of("w=0.15", "seed=403")]) == ["python -m alignlab w=0.15 seed=403"]
    assert len(calls) > composed
