"""The group `judge` in a run: when it counts, what of it counts, and that no key gets out."""

import dataclasses
import json
from dataclasses import asdict

import pytest

from alignlab.checks import machine, preflight
from alignlab.cli import main
from alignlab.config.effects import without_effect
from alignlab.config.hydra.compose import load_run_config
from alignlab.config.identity import run_folder
from alignlab.config.plan import plan_of
from alignlab.config.schema import EvaluateConfig
from alignlab.config.uses import always
from alignlab.errors import ConfigError, masked

OPENAI = "judge=openai"
LOCAL = ["judge=local", "judge.path=owner/name"]
KEY = "sk-proj-0123456789abcdefghijklmnop"


@pytest.fixture
def judged(monkeypatch):
    """`evaluate` stands in for an algorithm that judges."""
    uses = EvaluateConfig.uses
    judging = dataclasses.replace(uses, reads={**uses.reads, "judge": always}, judges=always)
    monkeypatch.setattr(EvaluateConfig, "uses", judging)
    return "algorithm=evaluate"


def test_a_judge_counts_only_where_something_is_judged(run_of, judged):
    assert run_folder(run_of(OPENAI)) == run_folder(run_of())
    assert run_folder(run_of(judged, OPENAI)) != run_folder(run_of(judged))
    overrides = ["algorithm=dpo", OPENAI, "judge.workers=3"]
    assert without_effect([run_of(*overrides)], overrides, is_sweep=False) == [
        "judge=openai: has no effect on algorithm=dpo",
        "judge.workers=3: has no effect on algorithm=dpo",
    ]
    overrides = [judged, OPENAI, "judge.workers=3"]
    assert without_effect([run_of(*overrides)], overrides, is_sweep=False) == []


@pytest.mark.parametrize(
    "override",
    [
        "judge.api_key_env=ANOTHER_KEY",
        "judge.workers=3",
        "judge.timeout_s=7",
        "judge.deadline_s=700",
        "judge.backoff_s=0.1",
        "judge.on_no_answer=unscored",
        "judge.dry_run=true",
        "judge.usd_per_million_input_tokens=3",
    ],
)
def test_how_a_server_is_treated_is_no_part_of_a_run(run_of, judged, override):
    """So a run that ran out of patience or money goes on where it was, with more of it."""
    assert run_folder(run_of(judged, OPENAI, override)) == run_folder(run_of(judged, OPENAI))


@pytest.mark.parametrize(
    "override",
    [
        "judge.model=another",
        "judge.base_url=http://here/v1",
        "judge.wordings=[direct]",
        "judge.temperature=1",
        "judge.max_tokens=9",
    ],
)
def test_what_a_judge_is_asked_is_part_of_a_run(run_of, judged, override):
    assert run_folder(run_of(judged, OPENAI, override)) != run_folder(run_of(judged, OPENAI))


def test_a_judges_weights_are_part_of_a_run(run_of, judged, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    overrides = (judged, "judge=local", f"judge.path={tmp_path}")
    before = run_folder(run_of(*overrides))
    (tmp_path / "model.safetensors").write_text("x")
    assert run_folder(run_of(*overrides)) != before
    assert run_folder(run_of(*overrides, "judge.threshold=0.4")) != run_folder(run_of(*overrides))
    assert run_folder(run_of(*overrides, "judge.batch_size=4")) == run_folder(run_of(*overrides))


@pytest.mark.parametrize("overrides", [["judge=rules"], [OPENAI], LOCAL, ["judge=guard", LOCAL[1]]])
def test_a_run_is_read_back_from_its_folder(run_of, tmp_path, overrides):
    config = run_of(*overrides)
    (tmp_path / "config.json").write_text(json.dumps(asdict(config)))
    assert load_run_config(tmp_path / "config.json") == config


def test_a_key_must_be_there_where_something_is_judged(run_of, judged, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"judge\.api_key_env=OPENAI_API_KEY: no such environment variable is set"):
        machine.check_key(plan_of(run_of(judged, OPENAI)))
    machine.check_key(plan_of(run_of(OPENAI)))
    machine.check_key(plan_of(run_of(judged, OPENAI, "judge.dry_run=true")))
    machine.check_key(plan_of(run_of(judged, OPENAI, "judge.api_key_env=null")))
    machine.check_key(plan_of(run_of(judged)))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    machine.check_key(plan_of(run_of(judged, OPENAI)))


def test_a_local_judge_must_be_there(run_of, judged):
    with pytest.raises(ConfigError, match=r"judge\.path=\./nowhere: no such folder"):
        preflight.check(plan_of(run_of(judged, "judge=local", "judge.path=./nowhere")))
    preflight.check(plan_of(run_of("judge=local", "judge.path=./nowhere")))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["judge=local"], "judge.path=null: must name a folder with a model"),
        (["judge=openia"], "judge=openia: did you mean openai?"),
        ([*LOCAL, "judge.wordings=[]"], "judge.wordings=[]: must name at least one wording"),
        (["judge=guard", LOCAL[1], "judge.wordings=[direct]"], "judge.wordings=['direct']: must be [] with judge.ask"),
        ([*LOCAL, "judge.yes_words=[no]"], "judge.no_words"),
        ([*LOCAL, "judge.yes_words=[]"], "judge.yes_words=[]: must name at least one word"),
        ([*LOCAL, "judge.threshold=1"], "judge.threshold=1.0: must be between 0 and 1"),
        ([*LOCAL, "judge.min_mass=-1"], "judge.min_mass=-1.0: must be in [0, 1)"),
        ([*LOCAL, "judge.batch_size=0"], "judge.batch_size=0: must be > 0"),
        ([*LOCAL, "judge.dtype=int8"], "judge.dtype=int8: choose one of"),
        ([*LOCAL, "judge.ask=nicely"], "judge.ask=nicely: choose one of conversation, question"),
        ([*LOCAL, "judge.prompt_template=x"], "judge.prompt_template=x: must hold {raw_prompt}"),
        (["judge.phrases=[]"], "judge.phrases=[]: must name at least one phrase"),
        (["judge.phrases=['...']"], "judge.phrases=...: must hold a word"),
        (["judge.workers=3"], "judge.workers: no such key"),
        (["++judge.api_key=x"], "judge.api_key: has no effect on judge=rules"),
        ([OPENAI, "judge.apikey_env=X"], "judge.apikey_env: no such key with judge=openai; did you mean api_key_env?"),
    ],
)
def test_bad_settings_are_named(runs_of, overrides, said):
    with pytest.raises(ConfigError) as error:
        runs_of(*overrides)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "typed",
    [
        f"judge.api_key_env={KEY}",
        f"judge.api_key={KEY}",
        f"++judge.api_key={KEY}",
        f"judge.model=[{KEY}]",
        f"judge.base_url=https://me:{KEY}@host/v1",
        f"judge.base_url=https://host/v1?key={KEY}",
        f"judge.workers={KEY}",
        f"judge={KEY}",
        f"{KEY}",
        f"judge.api_key_env: {KEY}",
        f"judge.wordings=[{KEY}]",
    ],
)
def test_a_key_on_the_command_line_is_not_repeated(tmp_path, monkeypatch, capsys, typed):
    """Whatever is wrong with it is said before Hydra writes anything down."""
    monkeypatch.chdir(tmp_path)
    assert main(["judge=openai", typed] if not typed.startswith("judge=") else [typed]) == 2
    printed = capsys.readouterr()
    assert printed.err
    assert KEY not in printed.out + printed.err
    assert list(tmp_path.iterdir()) == []


def test_what_looks_like_a_key_is_masked_and_nothing_else():
    assert masked(f"a {KEY}; Bearer {'x' * 20} b") == "a ***; *** b"
    assert masked("AIza" + "x" * 35) == "***"
    for text in (
        "sk-short",
        "risk-averse-behaviour-of-models",
        "pku_saferlhf_10k",
        "Llama-Guard-3-8B",
        "task-" + "x" * 30,
    ):
        assert masked(text) == text
