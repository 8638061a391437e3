"""The recipes: each runs in small, on the toy and on a few rows of its own data, from its first command to its last."""

import json
import random

import pytest
import yaml

from alignlab.cli import main
from alignlab.config.roots import config_root
from alignlab.runs.result import finished_result

TOY = {
    "modpo_safety": ["dataset=toy"],
    "three_objectives": ["dataset=toy_three"],
    "small_modern": ["dataset=toy"],
    "summary_length_sft": ["dataset=toy"],
    "summary_length": ["dataset=toy_three", "dataset.use=[better,brief]"],
}
SMALL = ["trainer.max_steps=2", "trainer.logging_steps=1", "trainer.per_device_train_batch_size=2", "hardware=cpu"]
TINY = ["model=tiny", "model.pretraining.rows=320", "dataset.pairs=80", "dataset.exact_samples=100"]
SCRATCH = [
    "model=scratch",
    "model.pretraining.num_train_epochs=1",
    "model.architecture.hidden_size=32",
    "model.architecture.intermediate_size=64",
    "model.architecture.num_hidden_layers=2",
    "model.architecture.vocab_size=300",
]
WORDS = "a dog ran over the hill and back to its old red house by noon so we all went home for tea"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("experiments")


def run(root, *overrides):
    return main([*overrides, f"paths.runs={root}/runs", f"paths.cache={root}/cache"])


def sentence(rng, least=4, most=12):
    return " ".join(rng.choices(WORDS.split(), k=rng.randint(least, most)))


def write_rows(file, make):
    rng = random.Random(0)
    file.write_text("".join(json.dumps(make(rng)) + "\n" for _ in range(24)))
    return file


def posts(rng):
    summaries = [{"text": sentence(rng)}, {"text": sentence(rng)}]
    return {"info": {"post": sentence(rng, 12, 20)}, "summaries": summaries, "choice": rng.randint(0, 1)}


def requests(rng):
    texts = {"prompt": sentence(rng), "response_0": sentence(rng), "response_1": sentence(rng)}
    return {**texts, "better_response_id": rng.randint(0, 1), "safer_response_id": rng.randint(0, 1)}


def test_every_recipe_is_tried():
    assert set(TOY) == {path.stem for path in (config_root("conf") / "experiment").glob("*.yaml")}


@pytest.mark.parametrize("name", TOY)
def test_a_recipe_runs_on_the_toy(root, name):
    of_modpo = ["generator.samples=1", "algorithm.check_rewards=false"]
    settings = [*TINY, *TOY[name], *SMALL, *([] if name.endswith("sft") else of_modpo)]
    out = root / name
    assert run(root, f"experiment={name}", *settings, f"hydra.run.dir={out}") == 0
    done = finished_result(out).to_json()
    assert (out / done["artifacts"]["adapter"] / "adapter_model.safetensors").exists()
    recipe = yaml.safe_load((config_root("conf") / "experiment" / f"{name}.yaml").read_text())
    told = json.loads((out / "config.json").read_text())
    assert told["trainer"]["num_train_epochs"] == recipe.get("trainer", {}).get("num_train_epochs", 3.0)
    if name == "small_modern":
        assert told["hardware"] == {"device": "cpu", "processes": 1, "nodes": 1, "bf16": True, "fsdp": False}


def test_the_summaries_from_the_first_step_to_the_last(root):
    data = [f"dataset.path={write_rows(root / 'posts.jsonl', posts)}", "dataset.test_share=0.4"]
    sft, merged, out = root / "s-sft", root / "s-merged", root / "s-modpo"
    first = ["experiment=summary_length_sft", *SCRATCH, *data, *SMALL]
    assert run(root, *first, f"hydra.run.dir={sft}") == 0
    onto = ["algorithm=merge", *SCRATCH, "dataset=summarize_from_feedback", *data]
    template = yaml.safe_load((config_root("conf") / "experiment" / "summary_length_sft.yaml").read_text())["model"]
    onto += [f"model.prompt_template={template['prompt_template']}"]
    assert run(root, *onto, f"algorithm.adapter={sft}/adapter", f"hydra.run.dir={merged}") == 0
    last = ["experiment=summary_length", "model=hf", f"model.path={merged}/model", *data, *SMALL]
    assert run(root, *last, f"hydra.run.dir={out}") == 0
    result = finished_result(out).to_json()
    assert result["weights"] == {"preferred": 1.0, "brief": 0.1}
    assert result["rewards"]["brief"]["kind"] == "length"
    assert result["inputs"]["model"] != finished_result(sft).inputs["model"]
    held_out = result["metrics"]["preferred_accuracy"]["n"]
    assert 0 < result["metrics"]["brief_accuracy"]["n"] <= held_out, "the penalty ranks what nobody labelled"


def test_three_objectives_on_rows_of_the_hubs_columns_make_a_front(root, capfd):
    data = [f"dataset.path={write_rows(root / 'requests.jsonl', requests)}", "dataset.test_share=0.4"]
    weights = "w=[0.8,0.1,0.1],[0.1,0.1,0.8]"
    recipe = ["-m", "experiment=three_objectives", *SCRATCH, *data, *SMALL, "algorithm.check_rewards=false", weights]
    assert run(root, *recipe) == 0
    (front,) = root.glob("runs/front/scratch/pku_saferlhf_10k/*")
    assert json.loads((front / "front.json").read_text())["axes"] == {
        name: f"{name}_accuracy" for name in ("better", "safer", "brief")
    }
    assert (front / "front.png").exists()


def test_an_unknown_recipe_is_named(capfd):
    assert main(["experiment=modpo_safty"]) == 2
    assert "experiment=modpo_safty: did you mean modpo_safety?" in capfd.readouterr().err
