"""The jobs from end to end on a minute toy, through the real command line."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from alignlab.cli import main
from alignlab.front.collect import collect
from alignlab.models.cards import read_card, save_card

SMALL = [
    "model.pretraining.rows=640",
    "dataset.pairs=150",
    "dataset.exact_samples=300",
    "generator.samples=2",
    "trainer.max_steps=3",
    "trainer.per_device_train_batch_size=8",
    "trainer.logging_steps=1",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Where this module's runs and cache lie."""
    return tmp_path_factory.mktemp("jobs")


def run(root, *overrides):
    """The exit code of a command on the small settings."""
    return main([*overrides, *SMALL, f"paths.runs={root}/runs", f"paths.cache={root}/cache"])


def result_of(root, pattern):
    """result.json of the one run that the pattern finds."""
    (file,) = root.glob(f"runs/{pattern}/result.json")
    return json.loads(file.read_text()), file.parent


def margin_of(root):
    """result.json and folder of the run behind the reward of safer."""
    folders = root.glob("runs/reward_model/tiny/toy/*")
    cards = {json.loads((one / "adapter/alignlab.json").read_text())["objective"]: one for one in folders}
    return json.loads((cards["safer"] / "result.json").read_text()), cards["safer"]


def adapter_of(folder: Path):
    return load_file(folder / "adapter" / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def modpo_at_half(root):
    assert run(root, "w=0.5") == 0
    return result_of(root, "modpo/tiny/toy/w=0.5/*")


def test_result_says_what_it_was_and_what_came_out(modpo_at_half):
    result, folder = modpo_at_half
    assert result["status"] == "done"
    assert result["error"] is None
    assert result["weights"] == {"better": 0.5, "safer": 0.5}
    assert set(result["metrics"]) >= {"helpful", "safe", "kl", "attained_share", "kl_to_optimum", "well_formed"}
    for metric in result["metrics"].values():
        assert metric["n"] > 0
        assert metric["ci95"] is None or metric["ci95"][0] <= metric["mean"] <= metric["ci95"][1]
    for path in result["artifacts"].values():
        assert (folder / path).exists()
    assert result["metrics"]["kl"]["mean"] >= 0
    assert not (folder / "checkpoints").exists()


def test_generations_and_scores_join_by_id(modpo_at_half):
    result, folder = modpo_at_half
    rows = [[json.loads(line) for line in (folder / name).open()] for name in ("generations.jsonl", "scores.jsonl")]
    assert [row["id"] for row in rows[0]] == [row["id"] for row in rows[1]]
    assert len({row["id"] for row in rows[0]}) == len(rows[0]) == result["metrics"]["helpful"]["n"]
    mean = sum(row["helpful"] for row in rows[1]) / len(rows[1])
    assert mean == pytest.approx(result["metrics"]["helpful"]["mean"])


def test_the_reward_was_made_and_says_what_it_is(root, modpo_at_half):
    result, folder = margin_of(root)
    card = json.loads((folder / "adapter" / "alignlab.json").read_text())
    assert card["objective"] == "safer"
    assert card["beta"] == 1.0
    assert card["base"] == result["inputs"]["model"]
    assert card["dataset"] == "toy"
    assert "{raw_prompt}" in card["prompt_template"]


def test_w_1_is_dpo_to_the_bit(root, modpo_at_half):
    assert run(root, "w=1") == 0
    assert run(root, "algorithm=dpo") == 0
    _, modpo = result_of(root, "modpo/tiny/toy/w=1/*")
    _, dpo = result_of(root, "dpo/tiny/toy/*")
    left, right = adapter_of(modpo), adapter_of(dpo)
    assert left.keys() == right.keys()
    assert all(left[name].equal(right[name]) for name in left)
    _, half = modpo_at_half
    other = adapter_of(half)
    assert not all(left[name].equal(other[name]) for name in left)


def test_w_0_is_the_other_objectives_margin_adapter(root, modpo_at_half):
    made = set(root.glob("runs/reward_model/tiny/toy/*"))
    assert run(root, "w=0") == 0
    assert set(root.glob("runs/reward_model/tiny/toy/*")) == made, "the one of w=0.5"
    result, folder = result_of(root, "modpo/tiny/toy/w=0/*")
    left, right = adapter_of(folder), adapter_of(margin_of(root)[1])
    assert all(left[name].equal(right[name]) for name in left)
    assert "training" not in result["seconds"]
    assert result["weights"] == {"better": 0.0, "safer": 1.0}


def test_the_heavier_objective_is_trained_on(root, modpo_at_half):
    assert run(root, "w=0.3") == 0
    result, folder = result_of(root, "modpo/tiny/toy/w=0.3/*")
    assert json.loads((folder / "adapter" / "alignlab.json").read_text())["objective"] == "safer"
    assert list(result["rewards"]) == ["better"]
    assert (result["w"], result["weights"]) == (0.3, {"better": 0.3, "safer": 0.7})


def test_step_0_loss_is_that_of_the_tilted_margin(root, modpo_at_half):
    """Before the first step the policy is the reference: DPO's loss is ln 2, MODPO's -log sigmoid of the tilt."""
    dpo = [json.loads(line) for line in next(root.glob("runs/reward_model/tiny/toy/*/metrics.jsonl")).open()]
    assert dpo[0]["loss"] == pytest.approx(0.6931472, abs=2e-6)
    _, folder = modpo_at_half
    modpo = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    assert modpo[0]["loss"] != pytest.approx(0.6931472, abs=2e-6)


def test_a_gold_margin_needs_no_reward_model(root, modpo_at_half):
    before = {name: set(root.glob(f"runs/{name}/*")) for name in ("modpo/tiny/toy/w=0.5", "reward_model/tiny/toy")}
    assert run(root, "w=0.5", "reward=gold") == 0
    made = {name: set(root.glob(f"runs/{name}/*")) - known for name, known in before.items()}
    assert [len(folders) for folders in made.values()] == [1, 0]


def test_evaluate_the_reference_and_an_adapter(root, modpo_at_half):
    _, folder = modpo_at_half
    assert run(root, "algorithm=evaluate", f"hydra.run.dir={root}/ev-ref") == 0
    reference = json.loads((root / "ev-ref" / "result.json").read_text())
    assert reference["metrics"]["kl"]["mean"] == 0
    assert not {"attained_share", "kl_to_optimum"} & set(reference["metrics"]), "it has no weights to be optimal for"
    assert run(root, "algorithm=evaluate", f"algorithm.adapter={folder}/adapter", f"hydra.run.dir={root}/ev") == 0
    again = json.loads((root / "ev" / "result.json").read_text())
    before = json.loads((folder / "result.json").read_text())
    shutil.copytree(folder / "adapter", root / "made_elsewhere", ignore=shutil.ignore_patterns("alignlab.json"))
    asked = (f"algorithm.adapter={root}/made_elsewhere", f"hydra.run.dir={root}/ev-without")
    assert run(root, "algorithm=evaluate", *asked) == 0
    unknown = json.loads((root / "ev-without" / "result.json").read_text())
    assert unknown["metrics"]["kl"]["mean"] > 0
    assert not {"attained_share", "kl_to_optimum"} & set(unknown["metrics"]), "nobody knows its weights"
    for name in ("helpful", "safe", "kl", "kl_to_optimum"):
        assert again["metrics"][name]["mean"] == pytest.approx(before["metrics"][name]["mean"], abs=1e-6)


def test_a_policy_of_other_objectives_has_no_weights(root, modpo_at_half):
    """They are those of its card and not this run's w: without them it is a point of its own on a front."""
    result, folder = modpo_at_half
    other = root / "of_others"
    shutil.copytree(folder / "adapter", other)
    card = read_card(other)
    save_card(other, replace(card, objective="polite", weights={"polite": 0.4, "safer": 0.6}))
    out = root / "ev-others"
    assert run(root, "algorithm=evaluate", f"algorithm.adapter={other}", f"hydra.run.dir={out}") == 0
    found = json.loads((out / "result.json").read_text())
    assert (found["w"], found["weights"], found["beta"]) == (None, None, result["beta"])
    assert not {"attained_share", "kl_to_optimum"} & set(found["metrics"])
    points = collect([out, folder]).points
    assert [dict(point.weights) for point in points] == [result["weights"], {}]
    assert [point.algorithm for point in points] == ["modpo", "modpo"]


def test_sft_adapter_is_a_start_for_any_model(root, modpo_at_half):
    assert run(root, "algorithm=sft") == 0
    _, folder = result_of(root, "sft/tiny/toy/*")
    assert adapter_of(folder)
    (reference,) = (path.parent for path in root.glob("cache/references/*/config.json"))
    overrides = ["algorithm=dpo", "model=hf", f"model.path={reference}", f"model.adapter={folder}/adapter"]
    assert run_hf(root, *overrides, "model.prompt_template='user: {raw_prompt} assistant: '") == 0
    result, _ = result_of(root, "dpo/hf/toy/*")
    assert result["status"] == "done"


def run_hf(root, *overrides):
    """A run on a model from a folder, which has no pretraining to shorten."""
    settings = [item for item in SMALL if not item.startswith("model.")]
    return main([*overrides, *settings, f"paths.runs={root}/runs", f"paths.cache={root}/cache"])


def test_an_adapter_made_elsewhere_needs_its_beta(root, modpo_at_half, capfd):
    _, reward = margin_of(root)
    foreign = root / "foreign"
    shutil.copytree(reward / "adapter", foreign)
    (foreign / "alignlab.json").unlink()
    named = f"algorithm.rewards.safer.adapter={foreign}"
    assert run(root, "w=0.5", named) == 2
    assert "algorithm.rewards.safer.beta" in capfd.readouterr().err
    assert run(root, "w=0.5", named, "algorithm.rewards.safer.beta=1.0") == 0


def test_a_reward_at_another_beta_is_refused(root, modpo_at_half, capfd):
    _, reward = margin_of(root)
    named = f"algorithm.rewards.safer.adapter={reward}/adapter"
    assert run(root, "w=0.5", named, "algorithm.rewards.safer.beta=5.0") == 2
    assert "beta=1" in capfd.readouterr().err


def test_front_on_its_own(root, modpo_at_half):
    for w in (0, 1):
        assert run(root, f"w={w}") == 0
    assert (
        run(
            root,
            "algorithm=front",
            f"algorithm.runs=[{root}/runs/modpo/tiny/toy/w=0, {root}/runs/modpo/tiny/toy/w=1]",
        )
        == 0
    )
    (folder,) = root.glob("runs/front/tiny/toy/*")
    assert (folder / "front.png").read_bytes().startswith(b"\x89PNG")
    assert len((folder / "front.csv").read_text().splitlines()) == 3
