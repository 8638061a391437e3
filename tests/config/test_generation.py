"""Settings of generators and of 4-bit models: what is refused, what changes a run's folder, what comes back."""

import importlib.util
import json
from dataclasses import asdict

import pytest

from alignlab.checks.preflight import check
from alignlab.config.hydra.compose import load_run_config
from alignlab.config.identity import run_folder
from alignlab.config.plan import plan_of
from alignlab.config.schema import LocalGeneratorConfig, ServerGeneratorConfig
from alignlab.errors import ConfigError
from alignlab.prerequisites.own_pairs import sampler_of
from alignlab.prerequisites.policy import policy_under_test

SERVER = ("generator=server", "generator.model=name")
SAID = {
    "generator.temperature=-1": "generator.temperature=-1.0: must be >= 0",
    "generator.top_p=0": "generator.top_p=0.0: must be in (0, 1]",
    "generator.batch_size=3": "generator.batch_size: no such key",
    "generator.model=null": "generator.model=null: must name the server's model",
    "generator.prompt_format=txt": "generator.prompt_format=txt: did you mean text? choose one of text, tokens",
    "generator.base_url=ftp://x/v1": "generator.base_url=ftp://x/v1: must begin with http:// or https://",
    "generator.base_url=http://169.254.169.254/v1": "is an address where clouds serve credentials",
    "generator.api_key_env=sk-12": "generator.api_key_env: must be the NAME of an environment variable",
    "generator.samples_per_call=0": "generator.samples_per_call=0: must be > 0",
    "generator.workers=0": "generator.workers=0: must be in 1..1000",
    "generator.deadline_s=1": "generator.deadline_s=1.0: must be at least generator.timeout_s=120",
    "generator.extra_body.n=3": "generator.extra_body.n=3: has a key of its own",
    "generator.extra_body={seed: 3}": "generator.extra_body.seed=3: has a key of its own",
    "generator.extra_body={stream: true}": "generator.extra_body.stream=True: would change the form of the answer",
}
PLACE = ["workers=2", "timeout_s=9", "deadline_s=999", "backoff_s=2", "api_key_env=MY_KEY"]
SUBSTANCE = ["model=other", "temperature=0", "samples_per_call=5", "extra_body={top_k: 3}", "prompt_format=text"]


@pytest.mark.parametrize(("override", "said"), SAID.items(), ids=list(SAID))
def test_a_wrong_server_setting_is_one_line(runs_of, override, said):
    with pytest.raises(ConfigError) as refused:
        runs_of(*SERVER, override)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("override", "same"), [*((key, True) for key in PLACE), *((key, False) for key in SUBSTANCE)])
def test_the_folder_is_a_function_of_what_changes_the_draws(run_of, override, same):
    before = run_folder(run_of(*SERVER, "algorithm=evaluate"))
    assert (run_folder(run_of(*SERVER, "algorithm=evaluate", f"generator.{override}")) == before) is same


@pytest.mark.parametrize(("overrides", "kind"), [((), LocalGeneratorConfig), (SERVER, ServerGeneratorConfig)])
def test_a_runs_config_is_read_back(run_of, tmp_path, overrides, kind):
    config = run_of(*overrides)
    (tmp_path / "config.json").write_text(json.dumps(asdict(config)))
    again = load_run_config(tmp_path / "config.json")
    assert type(again.generator) is kind
    assert again == config


def test_a_server_cannot_sample_the_policy_of_this_process(run_of):
    for name in ("evaluate", "modpo"):
        with pytest.raises(ConfigError, match=rf"^generator=server: algorithm={name} samples the policy"):
            check(plan_of(run_of(*SERVER, f"algorithm={name}")))
    check(plan_of(run_of(*SERVER, "algorithm=sft")))


OWN_PAIRS = ("algorithm=pairs", "scorers.better.kind=length", *SERVER, "generator.samples=4")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["algorithm.sources=[a]"], "algorithm.sources=a: generator=server samples what the server holds; serve"),
        (["algorithm.sources=[a,b]"], "algorithm.sources=[a,b]: must name one adapter with generator=server"),
        (["algorithm.sources=[a,b]", "generator.adapter_name=x"], "algorithm.sources=[a,b]: must name one adapter"),
        (["algorithm.sources=[a]", "generator.adapter_name=x"], "algorithm.sources=a: no such folder"),  # the control
    ],
)
def test_a_server_answers_for_one_adapter(run_of, given, said):
    with pytest.raises(ConfigError) as refused:
        check(plan_of(run_of(*OWN_PAIRS, *given)))
    assert str(refused.value).startswith(said)
    check(plan_of(run_of(*OWN_PAIRS)))


def test_answers_of_a_server_count_by_what_is_sent(run_of):
    def model_id(*given):
        plan = plan_of(run_of(*OWN_PAIRS, "model=hf", "model.path=a/b", *given))
        return sampler_of(plan.model, plan.generator, (), seed=0, max_length=64).model_id

    assert model_id("generator.workers=2") == model_id()
    assert model_id("generator.extra_body={top_k: 3}") != model_id()


def test_an_adapter_of_the_hub_that_a_server_holds_is_looked_for_there(run_of):
    plan = plan_of(run_of(*OWN_PAIRS, "generator.adapter_name=x"))
    with (
        pytest.raises(ConfigError, match=r"^algorithm\.sources=owner/none: "),
        policy_under_test(plan.model, "owner/none", plan.generator, key="algorithm.sources"),
    ):
        pass


NF4 = ("model=qwen2_0.5b_instruct", "model.quantization=nf4", "dataset=pku_saferlhf_10k", "algorithm=dpo")


def test_4_bits_need_bitsandbytes(run_of, monkeypatch):
    check(plan_of(run_of(*NF4)))
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else found(name))
    with pytest.raises(
        ConfigError, match=r"^model.quantization=nf4: needs bitsandbytes; pip install 'alignlab\[nf4\]'"
    ):
        check(plan_of(run_of(*NF4)))
    check(plan_of(run_of(*NF4[:1], *NF4[2:])))


def test_wandb_is_asked_for_before_anything_runs(run_of, monkeypatch):
    asked = ("tracker=wandb", "algorithm=dpo")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name == "wandb" else found(name))
    check(plan_of(run_of(*asked)))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else found(name))
    with pytest.raises(ConfigError, match=r"^tracker=wandb: needs wandb; pip install 'alignlab\[wandb\]'"):
        check(plan_of(run_of(*asked)))
    check(plan_of(run_of("tracker=local", "algorithm=dpo")))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.quantization=int3", "model.quantization=int3: must be nf4, or null"),
        ("model.adapter=a/b", "model.adapter=a/b: cannot be merged into 4-bit weights"),
    ],
)
def test_what_4_bits_do_not_go_with(runs_of, override, said):
    with pytest.raises(ConfigError) as refused:
        runs_of(*NF4, override)
    assert said in str(refused.value)


def test_4_bits_are_another_model(run_of):
    assert run_folder(run_of(*NF4)) != run_folder(run_of(*NF4, "model.quantization=null"))
