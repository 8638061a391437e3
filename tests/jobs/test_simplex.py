"""Three objectives, one of them a program: each gold mean goes where its weight points, and the front shows it."""

import json

import pytest

from alignlab.cli import main

SMALL = [
    "model.pretraining.rows=2000",
    "dataset.pairs=700",
    "dataset.exact_samples=200",
    "generator.samples=5",
    "trainer.max_steps=25",
    "trainer.learning_rate=3e-3",
    "reward=gold",
]
NEAR = {"better": "[0.8,0.1,0.1]", "safer": "[0.1,0.8,0.1]", "brief": "[0.1,0.1,0.8]"}
AXES = {"better": "helpful", "safer": "safe", "brief": "brief"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("simplex")


@pytest.fixture(scope="module")
def swept(root):
    """Objective -> the result of the run near its vertex; and the folder of the sweep's front."""
    paths = [f"paths.runs={root}/runs", f"paths.cache={root}/cache"]
    assert main(["--config-name", "simplex", *SMALL, *paths, f"w={','.join(NEAR.values())}"]) == 0
    results = {}
    for file in root.glob("runs/modpo/tiny/toy_three/*/*/result.json"):
        result = json.loads(file.read_text())
        results[max(result["weights"], key=result["weights"].get)] = result
    (front,) = root.glob("runs/front/tiny/toy_three/*")
    return results, front


@pytest.mark.parametrize("objective", NEAR)
def test_a_mean_is_greatest_where_its_weight_is(swept, objective):
    results, _ = swept
    axis = AXES[objective]
    here = results[objective]["metrics"][axis]["ci95"]
    for other in set(NEAR) - {objective}:
        there = results[other]["metrics"][axis]["ci95"]
        assert here[0] > there[1], f"{axis} at {NEAR[objective]} against {NEAR[other]}: intervals apart"


def test_the_weights_are_all_in_the_result(swept):
    results, _ = swept
    assert results["brief"]["w"] == [0.1, 0.1, 0.8]
    assert results["brief"]["axes"] == AXES
    assert results["brief"]["rewards"]["brief"]["kind"] == "length"


def test_the_front_has_three_axes_and_the_exact_one_beside(swept):
    _, front = swept
    assert (front / "front.png").stat().st_size > 10_000
    assert len((front / "front.csv").read_text().splitlines()) == 4
    summary = json.loads((front / "front.json").read_text())
    assert summary["axes"] == AXES
    (series,) = summary["series"].values()
    assert all(found["rho"] > 0.8 for found in series["follows_weight"].values())
    assert series["to_exact"]["epsilon"]["value"] < 1
    assert series["hypervolume"]["nadir"]["exact"] > 0


@pytest.mark.parametrize(
    ("w", "said"),
    [
        ("[0,0.5,0.5]", "better weighs 0; train another objective"),
        ("[0,0,1]", "w=0: is the policy behind the reward of brief without training, so that reward must be implicit"),
        ("[0.5,0.5]", "w=[0.5,0.5]: 2 weights for 3 objectives (better, safer, brief)"),
        ("0.5", "one number serves two objectives, here are 3"),
        ("[0.5,0.5,0.5]", "weights sum to 1.5, must sum to 1"),
        ("[0.03,0.5,0.47]", "the weight of better must be 0 or at least 0.05"),
    ],
)
def test_refused_in_one_line(root, capfd, w, said):
    given = ["dataset=toy_three", "algorithm.rewards.brief.kind=gold", f"paths.runs={root}/none", f"w={w}"]
    given += ["algorithm.objective=better"]
    assert main(given) == 2
    error = capfd.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


def test_a_reward_of_no_effect_is_said(root, capfd):
    given = ["dataset=toy_three", "algorithm.rewards.brief.kind=gold", f"paths.runs={root}/none"]
    assert main(["--cfg", "job", *given, "w=[1,0,0]"]) == 0
    assert "algorithm.rewards.brief.kind=gold: has no effect at w=[1, 0, 0]" in capfd.readouterr().err
