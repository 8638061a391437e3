"""Methods beside each other: differences paired by prompt at the shared w, and each training's cost counted once."""

import json
import shutil

import pytest

from alignlab.front.collect import collect
from alignlab.front.methods import compare_methods, cost_of, methods_table
from support.fronts import write_run

PROMPTS = [f"prompt {index}" for index in range(12)]


def samples(w, shift=0.0):
    """Two responses to each prompt; the prompts differ more than the methods do."""
    return [
        (prompt, f"{index} {draw}", {"helpful": index + w + shift, "safe": index + 1 - w + shift + 0.1 * draw})
        for index, prompt in enumerate(PROMPTS)
        for draw in range(2)
    ]


def write_method(root, name, ws=(0.25, 0.75), shift=0.0, **changed):
    return [write_run(root / f"{name}-{w}", w=w, samples=samples(w, shift), algorithm=name, **changed) for w in ws]


def test_the_difference_is_paired_by_prompt(tmp_path):
    folders = [*write_method(tmp_path, "modpo"), *write_method(tmp_path, "soup", shift=0.5)]
    found = compare_methods(collect(folders).points)
    assert found["compared_with"] == "modpo"
    assert found["weights"] == [[0.25, 0.75], [0.75, 0.25]]
    difference = found["methods"]["soup"]["difference"]
    assert difference["mean"] == pytest.approx(0.5), "w sums to 1, so w.r moves by the shift"
    assert "difference" not in found["methods"]["modpo"]
    unpaired = found["methods"]["soup"]["utility"]["ci95"]
    assert unpaired[1] - unpaired[0] > 2, "over prompts, which differ by more than the methods do"


def test_only_the_w_that_all_have_are_compared(tmp_path):
    folders = [*write_method(tmp_path, "modpo", ws=(0.25, 0.5)), *write_method(tmp_path, "soup", ws=(0.5, 0.75))]
    assert compare_methods(collect(folders).points)["weights"] == [[0.5, 0.5]]
    assert compare_methods(collect(folders[:1] + folders[3:]).points) is None, "no w is shared"
    assert compare_methods(collect(folders[:2]).points) is None, "one method"


def test_utilities_beside_each_other_are_of_the_same_prompts(tmp_path):
    folders = write_method(tmp_path, "modpo")
    folders += [write_run(tmp_path / f"soup-{w}", w=w, samples=samples(w)[4:], algorithm="soup") for w in (0.25, 0.75)]
    rows = compare_methods(collect(folders).points)["methods"]
    assert rows["modpo"]["utility"]["mean"] == pytest.approx(rows["soup"]["utility"]["mean"]), "the same policy"
    assert rows["modpo"]["utility"]["groups"] == len(PROMPTS) - 2


def test_a_normalised_series_has_no_utility_in_the_scores_unit(tmp_path):
    folders = [*write_method(tmp_path, "modpo"), *write_method(tmp_path, "soup", recipe={"normalised": True})]
    found = compare_methods(collect(folders).points)
    rows = found["methods"]
    assert (rows["soup"]["utility"], rows["soup"]["difference"]) == (None, None)
    assert rows["modpo"]["utility"] is not None
    assert "no utility of soup: its w weighs normalised rewards" in methods_table(found).caption


def test_other_prompts_give_no_difference(tmp_path):
    folders = write_method(tmp_path, "modpo")
    other = [write_run(tmp_path / f"soup-{w}", w=w, samples=samples(w)[2:], algorithm="soup") for w in (0.25, 0.75)]
    (other[1] / "scores.jsonl").unlink()
    rows = compare_methods(collect([*folders, *other]).points)["methods"]
    assert rows["soup"]["utility"] is None
    assert rows["soup"]["difference"] is None
    assert rows["modpo"]["utility"] is not None


def test_a_training_that_made_several_policies_counts_once(tmp_path):
    home = write_run(tmp_path / "home", w=0.5, samples=samples(0.5), seconds={"training": 40.0, "sampling": 1.0})
    points = []
    for w in (0.25, 0.75):
        adapter = home / "points" / f"w={w}" / "adapter"
        adapter.mkdir(parents=True)
        (adapter / "adapter_model.safetensors").write_bytes(bytes(500))
        policy = {"algorithm": "modpo_conditioned", "seed": 0, "adapter": f"../home/points/w={w}/adapter"}
        more = {"policy": policy, "seconds": {"sampling": 3.0}, "algorithm": "evaluate"}
        points.append(write_run(tmp_path / f"evaluated-{w}", w=w, samples=samples(w), **more))
    cost = cost_of(points[0])
    assert (cost.training, cost.sampling, cost.adapter_bytes) == (40.0, 3.0, 500)
    separate = write_method(tmp_path, "modpo", seconds={"training": 40.0, "sampling": 3.0})
    rows = compare_methods(collect([*points, *separate]).points)["methods"]
    assert rows["modpo_conditioned"]["training"] == 40.0
    assert rows["modpo"]["training"] == 80.0, "two runs"
    assert rows["modpo_conditioned"]["sampling"] == rows["modpo"]["sampling"] == 6.0


def test_costs_are_of_one_seed_and_unknown_where_a_part_is(tmp_path):
    seeds = [(0.25, 0, 10.0), (0.75, 0, 20.0), (0.75, 1, 40.0)]
    for w, seed, seconds in seeds:
        more = {"seed": seed, "seconds": {"training": seconds, "sampling": None if w == 0.25 else 1.0}}
        write_run(tmp_path / "a" / f"{w}-{seed}", w=w, samples=samples(w), algorithm="modpo", **more)
    other = write_method(tmp_path, "soup")
    rows = compare_methods(collect([*(tmp_path / "a").iterdir(), *other]).points)["methods"]
    assert rows["modpo"]["training"] == pytest.approx(10 + (20 + 40) / 2), "each w by the mean of its own seeds"
    assert rows["modpo"]["sampling"] is None, "one of two is unknown, and no part of a sum"


def test_an_interval_that_is_not_alike_about_its_mean_shows_both_ends():
    row = dict.fromkeys(("kl", "attained_share", "kl_to_optimum", "utility", "training", "sampling", "adapter_bytes"))
    record = {"mean": 0.1, "ci95": [0.02, 0.3], "n": 9, "p_holm": 0.01, "told_apart": True}
    rows = {"modpo": row, "soup": {**row, "utility": record, "difference": record}}
    table = methods_table({"weights": [[0.5, 0.5]], "compared_with": "modpo", "methods": rows})
    cells = [str(list(column.cells)[1]) for column in table.columns[1:3]]
    assert cells == ["0.10 [0.02, 0.30]", "+0.100 [+0.020, +0.300] (p 0.01)"]


def test_a_lost_run_has_no_cost(tmp_path):
    (folder,) = write_method(tmp_path, "modpo", ws=(0.25,))
    record = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**record, "policy": {"adapter": "../gone/adapter"}}))
    shutil.rmtree(folder / "adapter", ignore_errors=True)
    cost = cost_of(folder)
    assert (cost.training, cost.adapter_bytes) == (None, None)


def test_a_hostile_name_is_shown_as_codes():
    row = dict.fromkeys(("kl", "attained_share", "kl_to_optimum", "utility", "training", "sampling", "adapter_bytes"))
    table = methods_table({"weights": [[0.5, 0.5]], "compared_with": "a", "methods": {"a\x1b[2J": row}})
    assert [str(cell) for cell in table.columns[0].cells] == ["a\\x1b[2J"]
