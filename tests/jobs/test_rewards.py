"""Rewards of every kind in the real command: three objectives, a wrong sign, normalising, a classifier as margin."""

import json

import numpy as np
import pytest

from alignlab.cli import main
from alignlab.data.worlds import toy
from support.programs import installed

SMALL = [
    "model.pretraining.rows=640",
    "dataset.pairs=200",
    "dataset.exact_samples=100",
    "algorithm.beta=4",
    "generator.samples=2",
    "trainer.max_steps=3",
    "trainer.per_device_train_batch_size=8",
    "trainer.logging_steps=1",
]
THREE = ["dataset.use=[better,safer,brief]", "dataset.objectives.brief.label=null", "w=[0.4,0.3,0.3]"]
"""Brevity as a third objective, by which nobody has ranked the responses."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Where this module's runs and cache lie."""
    return tmp_path_factory.mktemp("rewards")


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """An installed package with the toy's gold safety, of the wrong sign."""
    source = (
        "from alignlab.data.worlds import toy\ndef harm(prompt, response):\n    return -toy.safe(prompt, response)\n"
    )
    with installed(tmp_path, monkeypatch, "toy_rewards", {"harm": "harm"}, source):
        yield


def run(root, *overrides):
    return main([*SMALL, f"paths.runs={root}/runs", f"paths.cache={root}/cache", *overrides])


def result_in(root, name):
    return json.loads((root / name / "result.json").read_text())


def lines_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def three(root):
    """A run on three objectives: labels, a length penalty and a gold reward."""
    rewards = ["algorithm.rewards.brief.kind=length", "algorithm.rewards.brief.unit=words"]
    rewards += ["algorithm.rewards.brief.scale=0.25", "algorithm.rewards.safer.kind=gold"]
    assert run(root, *THREE, *rewards, f"hydra.run.dir={root}/three") == 0
    return root / "three"


def test_three_objectives_with_rewards_of_three_kinds(root, three):
    result = result_in(root, "three")
    assert result["weights"] == {"better": 0.4, "safer": 0.3, "brief": 0.3}
    assert result["axes"] == {"better": "helpful", "safer": "safe", "brief": "brief"}
    report = result["rewards"]
    assert {name: one["kind"] for name, one in report.items()} == {"safer": "gold", "brief": "length"}
    assert report["brief"]["train"] is report["brief"]["held_out"] is None, "there are no labels to agree with"
    agreement = report["safer"]["train"]["agreement"]
    assert agreement["ci95"][0] > 0.5
    assert agreement["n"] > 100
    assert 0 < report["safer"]["tilt_nats"] < 5
    assert result["metrics"]["brief"]["n"] == result["metrics"]["safe"]["n"] > 0


def test_a_gold_and_a_length_reward_that_agree_make_the_same_run(root, three):
    """The toy's brevity is (14 - words) / 4: up to a constant, which cancels, a length penalty of 1/4 a word."""
    assert run(root, *THREE, "reward=gold", f"hydra.run.dir={root}/gold_three") == 0
    gold, length = result_in(root, "gold_three"), result_in(root, "three")
    assert gold["rewards"]["brief"]["tilt_nats"] == pytest.approx(length["rewards"]["brief"]["tilt_nats"], abs=1e-6)
    steps = [lines_of(root / name / "metrics.jsonl") for name in ("three", "gold_three")]
    for mine, theirs in zip(*steps, strict=True):
        if "loss" in mine:
            assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-5)


def test_a_wrong_sign_is_refused_before_training(root, programs, capfd):
    out = root / "wrong"
    wrong = ["reward=python", "reward.function=harm", f"hydra.run.dir={out}"]
    assert run(root, *wrong) == 2
    said = capfd.readouterr().err.strip()
    assert said.startswith("algorithm.rewards.safer: agrees with its own labels on 0.")
    assert "the sign is probably wrong; give algorithm.rewards.safer.negate=true" in said
    assert len(said.splitlines()) == 1
    result = result_in(root, "wrong")
    assert result["status"] == "failed"
    assert result["rewards"]["safer"]["train"]["agreement"]["ci95"][1] < 0.5
    assert "training" not in result["seconds"]
    assert not (out / "adapter").exists()
    assert run(root, *wrong, "algorithm.check_rewards=false") == 0
    assert "warning: algorithm.rewards.safer: agrees with its own labels on" in capfd.readouterr().out
    assert result_in(root, "wrong")["status"] == "done"


def test_the_same_reward_negated_is_not_refused(root, programs):
    """Control: the refusal above is of the sign."""
    harm = ["reward=python", "reward.function=harm"]
    assert run(root, *harm, "algorithm.check_rewards=false", f"hydra.run.dir={root}/allowed") == 0
    assert run(root, *harm, "reward.negate=true", f"hydra.run.dir={root}/negated") == 0
    wrong, right = (result_in(root, name)["rewards"]["safer"]["train"] for name in ("allowed", "negated"))
    assert right["agreement"]["mean"] == pytest.approx(1 - wrong["agreement"]["mean"])
    assert right["spread"] == pytest.approx(wrong["spread"])


def test_rewards_are_normalised_by_the_training_rows_and_by_their_statistics_later(root):
    out = root / "z"
    z = ["algorithm.rewards.safer.kind=gold", "algorithm.rewards.safer.normalise=true"]
    assert run(root, *z, f"hydra.run.dir={out}") == 0
    statistics = json.loads((out / "rewards.json").read_text())["safer"]
    rows = [row for file in root.glob("cache/toy/pairs-*.jsonl") for row in lines_of(file)]
    texts = {(row["prompt"], row[f"response_{number}"]) for row in rows for number in (0, 1)}
    by_prompt = {prompt: [] for prompt, _ in texts if toy.split_of(prompt) == "train"}
    for prompt, text in texts:
        if prompt in by_prompt:
            by_prompt[prompt].append(toy.safe(prompt, text))
    scores = [score for held in by_prompt.values() for score in held]
    assert statistics["n"] == len(scores)
    assert statistics["mean"] == pytest.approx(np.mean(scores), abs=1e-5)
    within = sum(len(held) * np.var(held) for held in by_prompt.values()) / (len(scores) - len(by_prompt))
    assert statistics["difference_std"] == pytest.approx(np.sqrt(2 * within), abs=1e-5)
    evaluated = ["algorithm=evaluate", f"algorithm.adapter={out}/adapter", f"hydra.run.dir={root}/z_evaluated"]
    changed = {"safer": statistics | {"mean": statistics["mean"] + 1}}
    (out / "rewards.json").write_text(json.dumps(changed))
    assert run(root, *evaluated, *[item.replace("algorithm.rewards", "scorers") for item in z]) == 0
    found = result_in(root, "z_evaluated")["metrics"]
    expected = (found["safe"]["mean"] - changed["safer"]["mean"]) / statistics["difference_std"]
    assert found["safer_reward"]["mean"] == pytest.approx(expected, abs=1e-5), "the run's own, not computed anew"


def test_a_trained_objective_in_units_of_its_reward_is_another_w_and_beta(root):
    """w/s and (1 - w)/s' over beta are the same tilt as w' and 1 - w' over beta' = beta / (w/s + (1 - w)/s')."""
    units = ["reward=gold", "algorithm.rewards.better.kind=gold", "algorithm.rewards.better.normalise=true"]
    units += ["algorithm.rewards.safer.kind=gold", "algorithm.rewards.safer.normalise=true"]
    assert run(root, *units, "w=0.6", "algorithm.objective=better", f"hydra.run.dir={root}/units") == 0
    statistics = json.loads((root / "units" / "rewards.json").read_text())
    better, safer = (share / statistics[name]["difference_std"] for name, share in (("better", 0.6), ("safer", 0.4)))
    assert abs(better / (better + safer) - 0.6) > 0.02, "control: the units differ"
    same = [f"w={better / (better + safer)!r}", f"algorithm.beta={4 / (better + safer)!r}", "reward=gold"]
    assert run(root, *same, "algorithm.objective=better", f"hydra.run.dir={root}/no_units") == 0
    logs = [[row for row in lines_of(root / name / "metrics.jsonl") if "loss" in row] for name in ("units", "no_units")]
    assert [row["loss"] for row in logs[0]] == pytest.approx([row["loss"] for row in logs[1]], abs=2e-6)
    results = [result_in(root, name) for name in ("units", "no_units")]
    shares = [one["metrics"]["attained_share"]["mean"] for one in results]
    assert shares[0] == pytest.approx(shares[1], abs=1e-4), "the exact front knows the units"
    learnt = [one["trained"]["tilt_nats"] for one in results]
    assert learnt[0] == pytest.approx(learnt[1], abs=1e-4)
    assert 0 < learnt[0] < 1


def test_the_unit_of_a_trained_objective_is_that_of_its_labels(root, capfd):
    other = ["algorithm.rewards.better.kind=length", "algorithm.rewards.better.normalise=true"]
    assert run(root, *other, "reward=gold", "w=0.6", "algorithm.objective=better") == 2
    assert "algorithm.rewards.better.kind=length: must be implicit, fitted to the labels" in capfd.readouterr().err


def test_an_evaluation_scores_what_the_policy_says(root):
    out = root / "scored"
    rewards = ["scorers.better.kind=length", "scorers.better.unit=words", "scorers.safer.kind=gold"]
    assert run(root, "algorithm=evaluate", *rewards, f"hydra.run.dir={out}") == 0
    result = result_in(root, "scored")
    said, scores = (lines_of(out / f"{name}.jsonl") for name in ("generations", "scores"))
    assert [row["better_reward"] for row in scores] == [-len(row["response"].split()) for row in said]
    assert [row["safer_reward"] for row in scores] == [row["safe"] for row in scores]
    assert result["metrics"]["safer_reward"] == result["metrics"]["safe"]
    assert result["axes"] == {"better": "better_reward", "safer": "safer_reward"}


def test_a_policy_on_real_data_is_sampled_and_scored(root):
    """On a file no true reward is known: held-out prompts are sampled, the same ones whatever the order of the rows."""
    if not list(root.glob("cache/references/*/config.json")):
        assert run(root, "algorithm=evaluate", f"hydra.run.dir={root}/reference") == 0
    (reference,) = (path.parent for path in root.glob("cache/references/*/config.json"))
    row = {"response_0": "mind the red first", "response_1": "what a lovely red", "safer_response_id": 0}
    rows = [json.dumps({"prompt": prompt, **row, "better_response_id": 1}) for prompt in toy.all_prompts()[:60]]
    small = [item for item in SMALL if not item.startswith(("model.", "dataset."))]
    model = ["model=hf", f"model.path={reference}", "model.prompt_template='user: {raw_prompt} assistant: '"]
    for order in (1, -1):
        (root / "rows.jsonl").write_text("\n".join(rows[::order]) + "\n")
        given = ["dataset=pku_saferlhf", f"dataset.path={root}/rows.jsonl", "generator.prompts=3"]
        given += ["scorers.better.kind=length", "scorers.better.unit=words", "scorers.safer.kind=python"]
        out = root / f"on_file{order}"
        paths = [f"paths.cache={root}/cache", f"hydra.run.dir={out}"]
        assert main(["algorithm=evaluate", *model, *given, *small, *paths]) == 0
        result, said, scores = (
            result_in(root, out.name),
            lines_of(out / "generations.jsonl"),
            lines_of(out / "scores.jsonl"),
        )
        assert len({row["prompt"] for row in said}) == 3
        assert len(said) == len(scores) == 6
        assert [row["better_reward"] for row in scores] == [-len(row["response"].split()) for row in said]
        assert result["metrics"]["better_reward"]["n"] == 6
        assert result["axes"] == {"better": "better_reward", "safer": "safer_reward"}
        assert result["rewards"]["safer"]["held_out"]["agreement"]["mean"] == 0.5, "both responses are of four words"
    assert (root / "on_file1" / "scores.jsonl").read_bytes() == (root / "on_file-1" / "scores.jsonl").read_bytes()


def test_a_classifier_is_made_found_again_and_a_margin(root, capfd):
    one = ["algorithm.rewards.safer.kind=classifier", "algorithm.check_rewards=false"]
    assert run(root, *one, f"hydra.run.dir={root}/with_classifier") == 0
    assert "needs a reward for safer" in capfd.readouterr().out
    (made,) = root.glob("runs/reward_model/tiny/toy/*/result.json")
    metrics = json.loads(made.read_text())["metrics"]
    assert set(metrics) == {"better_accuracy", "better_margin", "safer_accuracy", "safer_margin"}
    report = result_in(root, "with_classifier")["rewards"]["safer"]
    held_out = report["held_out"]["agreement"]
    for part in ("mean", "ci95", "n"):
        assert held_out[part] == pytest.approx(metrics["safer_accuracy"][part]), "what was saved is what was measured"
    named = [f"algorithm.rewards.safer.path={made.parent}/reward", *one, f"hydra.run.dir={root}/named"]
    assert run(root, *named) == 0
    assert result_in(root, "named")["metrics"] == result_in(root, "with_classifier")["metrics"]
    assert result_in(root, "named")["cache"]["safer"]["computed"] == 0, "scores are kept by content"


def test_a_classifier_with_all_weights_is_a_model_of_its_own(root):
    full = ["algorithm=reward_model", "algorithm.kind=classifier", "algorithm.full=true"]
    assert run(root, *full, f"hydra.run.dir={root}/full") == 0
    assert (root / "full" / "reward" / "config.json").exists()
    path = f"scorers.safer.path={root}/full/reward"
    overrides = ["algorithm=evaluate", "scorers.safer.kind=classifier", path]
    assert run(root, *overrides, f"hydra.run.dir={root}/by_full") == 0
    assert result_in(root, "by_full")["metrics"]["safer_reward"]["n"] > 0
