"""What is wrong with a reward is said before a model is loaded: name, key, rule, exit code 2, nothing half-written."""

import importlib.util
import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from alignlab.cli import main
from alignlab.errors import ConfigError
from alignlab.models.cards import AdapterCard, ClassifierCard, read_card, read_classifier_card, save_card
from alignlab.models.saved_adapter import checked_adapter

TEMPLATE = "user: {raw_prompt} assistant: "
SAFER = "algorithm.rewards.safer"


def card(**changed):
    given = {"objective": "safer", "beta": 0.1, "base": "abc", "prompt_template": TEMPLATE, "dataset": "toy"}
    return AdapterCard(**(given | {"weights": {"better": 0.0, "safer": 1.0}} | changed))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder beside adapters and models of every sort."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))

    def folder(name, **files):
        (tmp_path / name).mkdir()
        for file, value in files.items():
            (tmp_path / name / f"{file}.json").write_text(json.dumps(value))
        weights = "adapter_model" if "adapter_config" in files else "model"
        save_file({"weights": np.zeros(2, "float32")}, tmp_path / name / f"{weights}.safetensors")
        return tmp_path / name

    lora = {"peft_type": "LORA", "task_type": "CAUSAL_LM"}
    save_card(folder("good", adapter_config=lora), card())
    save_card(folder("other_template", adapter_config=lora), card(prompt_template="Q: {raw_prompt}"))
    folder("foreign", adapter_config=lora)
    folder("torn", adapter_config=lora, alignlab=["no object"])
    folder("strange", adapter_config=lora, alignlab={"beta": 1})
    classifier = folder("classifier", adapter_config={**lora, "task_type": "SEQ_CLS"})
    save_card(classifier, ClassifierCard("classifier", "safer", "abc", TEMPLATE, True, 512, "toy", "d"))
    folder("causal", config={"architectures": ["LlamaForCausalLM"]})
    folder("two", config={"architectures": ["LlamaForSequenceClassification"]})
    folder("one", config={"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "LABEL_0"}})
    folder("code", config={"architectures": ["MyForSequenceClassification"], "auto_map": {"AutoModel": "mine.Model"}})
    folder("beaver", config={"architectures": ["LlamaModelForScore"], "score_type": "cost"})
    folder("critic", config={"architectures": ["LlamaModelForScore"], "score_type": "critic"})
    return tmp_path / "work"


REFUSED = {
    "adapter=../good beta=5": "safer.beta=5: the adapter was trained with beta=0.1",
    "adapter=../other_template": "was trained with model.prompt_template='Q: {raw_prompt}', this run has 'user: ",
    "adapter=../foreign": "safer.beta=null: ../foreign says nothing of the beta that it was trained with; give it",
    "adapter=../torn beta=1": "alignlab.json: must be a JSON object",
    "adapter=../strange beta=1": "alignlab.json: not an adapter's card",
    "adapter=../causal": "the folder holds no adapter_config.json",
    "adapter=owner/name beta=1": "safer.adapter=owner/name: must be a folder on this machine",
    "adapter=../classifier beta=1": "is a classifier's; give algorithm.rewards.safer.kind=classifier",
    "kind=classifier path=../causal": "is no sequence classifier (architectures=['LlamaForCausalLM'])",
    "kind=classifier path=../two": "has 2 labels, a reward needs a classifier with one",
    "kind=classifier path=../code": "needs code of its own (auto_map), which is never run",
    "kind=classifier path=../beaver": "is a beaver model; give kind=beaver",
    "kind=classifier path=../nope": "safer.path=../nope: no such folder",
    "kind=classifier path=../classifier template='{raw_prompt}!'": "template='{raw_prompt}!': the classifier was",
    "kind=beaver path=../one": "is no beaver model: architectures=['LlamaForSequenceClassification'], must hold",
    "kind=beaver path=../critic": "score_type=critic in its config.json: must be reward or cost",
    "kind=python function=brif": "safer.function=brif: did you mean brief?",
    "kind=http api_key_env=NO_SUCH_KEY": "safer.api_key_env=NO_SUCH_KEY: no such environment variable is set",
}


@pytest.mark.parametrize(("given", "said"), REFUSED.items(), ids=list(REFUSED))
def test_bad_rewards_end_with_2_and_a_line(here, capsys, given, said):
    assert main([f"{SAFER}.{item}" for item in given.split()]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.err.startswith(("algorithm.rewards.safer", str(here.parent), "../"))
    assert len(printed.err.splitlines()) == 1
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    "given",
    [
        "adapter=../good",
        "adapter=../good beta=0.1",
        "adapter=../foreign beta=3",
        "kind=classifier path=../one template='{raw_prompt}'",
        "kind=classifier path=owner/name",
        "kind=classifier path=../classifier",
        "kind=beaver path=../beaver",
        "kind=beaver",
        "kind=python function=refusal",
        "kind=http",
        "kind=length",
    ],
)
def test_good_ones_pass_the_same_checks(here, capsys, given):
    assert main(["--cfg", "job", *(f"{SAFER}.{item}" for item in given.split())]) == 0
    assert capsys.readouterr().err == ""


UNLABELLED = "dataset.objectives.safer.label=null"


@pytest.mark.parametrize("kind", ["implicit", "classifier"])
def test_nothing_is_trained_for_an_objective_without_labels(here, capsys, kind):
    assert main([UNLABELLED, f"{SAFER}.kind={kind}"]) == 2
    said = capsys.readouterr().err
    assert f"dataset=toy has no labels of safer, so no reward of kind={kind} can be trained for it" in said
    assert len(said.splitlines()) == 1
    assert main(["--cfg", "job", UNLABELLED, f"{SAFER}.kind=length"]) == 0


def test_w_0_is_no_policy_behind_a_normalised_reward(here, capsys):
    assert main(["w=0", "algorithm.objective=better", "reward.normalise=true"]) == 2
    assert "w=0: is the policy behind the reward of safer" in capsys.readouterr().err


def test_a_classifier_starts_from_a_whole_model(here, capsys):
    overrides = ["algorithm=reward_model", "algorithm.kind=classifier", "model=hf", "model.path=../causal"]
    assert main([*overrides, "model.adapter=../foreign"]) == 2
    assert "not with algorithm.kind=classifier; merge it into a model first" in capsys.readouterr().err


@pytest.mark.parametrize("setting", ["model.adapter=../foreign", "model.quantization=nf4"])
@pytest.mark.parametrize("kind", ["classifier", "cost"])
@pytest.mark.parametrize("as_scorer", [False, True])
def test_a_classifier_that_is_made_on_the_way_does_too(here, capsys, monkeypatch, setting, kind, as_scorer):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name == "bitsandbytes" else find(name))
    asked = f"scorers.safer.kind={kind}" if as_scorer else f"algorithm.kind={kind}"
    algorithm = "algorithm=dpo" if as_scorer else "algorithm=reward_model"
    given = [algorithm, "algorithm.objective=safer", "model=hf", "model.path=../causal"]
    assert main([*given, setting, asked]) == 2
    error = capsys.readouterr().err
    assert error.startswith(setting)
    assert f"with {asked}" in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["algorithm=sft", "model.quantization=nf4"], "model.quantization=nf4: the weights of ../stored are quantised"),
        (["algorithm=sft", "model.adapter=../foreign"], "model.adapter=../foreign: cannot be merged into quantised"),
        (["algorithm=merge", "algorithm.adapter=../foreign"], "algorithm.adapter=../foreign: cannot be merged into"),
    ],
)
def test_weights_that_are_stored_quantised(here, capsys, monkeypatch, given, said):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name == "bitsandbytes" else find(name))
    (here.parent / "stored").mkdir()
    settings = {"architectures": ["LlamaForCausalLM"], "quantization_config": {"quant_method": "gptq", "bits": 4}}
    (here.parent / "stored" / "config.json").write_text(json.dumps(settings))
    save_file({"weights": np.zeros(2, "float32")}, here.parent / "stored" / "model.safetensors")
    assert main(["model=hf", "model.path=../stored", *given]) == 2
    error = capsys.readouterr().err
    assert error.startswith(said)
    assert "(gptq)" in error
    assert len(error.splitlines()) == 1


def test_an_adapter_is_not_merged_in_4_bits(here, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name == "bitsandbytes" else find(name))
    given = ["algorithm=merge", "algorithm.adapter=../foreign", "model=hf", "model.path=../causal"]
    assert main([*given, "model.quantization=nf4"]) == 2
    assert "model.quantization=nf4: must be null with algorithm=merge" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        ("other_template", "was trained with model.prompt_template='Q: {raw_prompt}', this run has None"),
        ("classifier", "is a classifier's; give a policy's"),
        ("torn", "alignlab.json: must be a JSON object"),
    ],
)
def test_an_adapter_in_the_base_is_checked_by_its_card(here, capsys, adapter, said):
    assert main(["algorithm=sft", "model=hf", "model.path=../causal", f"model.adapter=../{adapter}"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


def test_a_card_comes_back_as_it_was_saved(tmp_path):
    for number, (saved, read) in enumerate(
        (
            (card(max_length=512, data="rows"), read_card),
            (ClassifierCard("classifier", "safer", "abc", None, True, 512, "toy", "d"), read_classifier_card),
        )
    ):
        folder = tmp_path / str(number)
        save_card(folder, saved)
        assert replace(read(folder), files={}) == saved
    with pytest.raises(ConfigError, match="not a classifier's card"):
        read_classifier_card(tmp_path / "0")
    assert read_card(tmp_path / "none") is None


def test_a_card_from_before_there_was_a_limit_is_read(here):
    assert checked_adapter("key", here.parent / "good", template=TEMPLATE).card.max_length is None
    found = checked_adapter("key", here.parent / "foreign", template=TEMPLATE, beta=3.0)
    assert (found.card, found.beta) == (None, 3.0)


def test_w_1_beside_weights_in_units_of_the_rewards(here, capsys):
    """At w=1 nothing else is weighed, so the policy would be that of another temperature than its neighbours'."""
    line = [
        "algorithm.objective=heaviest",
        *(f"+algorithm.rewards.{name}.kind=implicit" for name in ("better", "safer")),
    ]
    units = [f"+algorithm.rewards.{name}.normalise=true" for name in ("better", "safer")]
    for w, objective in (("1", "better"), ("0", "safer")):
        assert main([f"w={w}", *line, *units]) == 2
        said = capsys.readouterr().err
        assert f"algorithm.rewards.{objective}.normalise=true: at w=" in said
        assert len(said.splitlines()) == 1
    assert main(["--cfg", "job", "w=0.9", *line, *units]) == 0, "control"
    assert main(["--cfg", "job", "w=1", *line]) == 0, "control: without units of its own it is plain DPO"
