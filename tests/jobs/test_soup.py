"""algorithm=soup: endpoints are trained once and shared with modpo, the mixture is an adapter like any other."""

import json
import shutil

import pytest
from safetensors.torch import load_file

from alignlab.cli import main
from alignlab.models.cards import AdapterCard, read_card, save_card
from support.commands import alignlab, assert_refused, means, result, run_folder
from support.saved_adapters import ATTENTION, saved


@pytest.fixture(scope="module")
def swept(whole, tmp_path_factory):
    """A folder in which modpo w=0.5 and the soups w=0.5 and w=1 are done, and what the sweep said."""
    folder = tmp_path_factory.mktemp("soups")
    shutil.copytree(whole, folder, dirs_exist_ok=True)
    ended = alignlab("-m", "algorithm=soup", "w=0.5,1", cwd=folder)
    assert ended.returncode == 0, ended.stderr
    return folder, ended.stdout


def test_endpoints_are_trained_once_and_shared_with_modpo(swept):
    folder, said = swept
    trained = sorted((folder / "runs/reward_model").rglob("result.json"))
    assert len(trained) == 2
    assert said.count("running: runs/reward_model") == 1, "modpo had made the policy of safer"
    assert "0.5 better + 0.5 safer, exact, as one LoRA of rank 16; no training" in said
    assert (next((folder / "runs/front").rglob("front.csv"))).read_text().count(",soup,") == 2


def test_the_card_says_what_it_is(swept):
    run = run_folder(swept[0], "soup", 0.5)
    card, record = read_card(run / "adapter"), result(run)
    assert (card.algorithm, card.weights, card.beta) == ("soup", {"better": 0.5, "safer": 0.5}, 4.0)
    assert record["soup"] == {"rank": 16, "summed_rank": 16, "relative_error": 0.0}
    assert {"better_accuracy", "safer_accuracy", "helpful", "safe", "kl"} <= set(record["metrics"])


def test_all_of_one_objective_is_its_endpoint(swept):
    folder = swept[0]
    got = means(run_folder(folder, "soup", 1))
    (end,) = [file.parent for file in (folder / "runs/reward_model").rglob("result.json") if better(file)]
    wanted, other = means(end), means(run_folder(folder, "soup", 0.5))
    same = {name: pytest.approx(wanted[name], abs=1e-5) for name in ("better_margin", "safer_margin", "kl", "helpful")}
    assert {name: got[name] for name in same} == same
    assert abs(other["better_margin"] - wanted["better_margin"]) > 1e-3, "control"


def better(file):
    return json.loads(file.read_text())["weights"]["better"] == 1


def test_killed_twice_it_ends_in_the_same_bytes(swept, tmp_path):
    shutil.copytree(swept[0], tmp_path, dirs_exist_ok=True)
    run, name = run_folder(tmp_path, "soup", 0.5), "adapter/adapter_model.safetensors"
    shutil.rmtree(run)
    for where in ("alignlab.jobs.soup:save_card", "alignlab.evaluation.measure:sample_responses"):
        assert alignlab("algorithm=soup", "w=0.5", cwd=tmp_path, breaks=(where, 1, "SIGKILL")).returncode == -9
    assert alignlab("algorithm=soup", "w=0.5", cwd=tmp_path).returncode == 0
    whole = run_folder(swept[0], "soup", 0.5)
    assert (run / name).read_bytes() == (whole / name).read_bytes()
    assert means(run) == means(whole)


def test_a_smaller_rank_and_named_endpoints_past_the_ends(swept, tmp_path):
    shutil.copytree(swept[0], tmp_path, dirs_exist_ok=True)
    ends = {better(file): file.parent / "adapter" for file in (tmp_path / "runs/reward_model").rglob("result.json")}
    named = f"algorithm.adapters={{better: {ends[True]}, safer: {ends[False]}}}"
    beyond = ("w=[1.3,-0.3]", "algorithm.extrapolate=true", "algorithm.rank=3")
    ended = alignlab("algorithm=soup", named, *beyond, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "endpoint of" not in ended.stdout, "named, so neither looked for nor made"
    assert "trainer.max_steps=6: has no effect on algorithm=soup, which trains nothing here" in ended.stderr
    run = run_folder(tmp_path, "soup", 1.3)
    record = result(run)
    assert record["weights"] == {"better": 1.3, "safer": -0.3}
    assert record["soup"]["rank"] == 3
    assert f"{record['soup']['relative_error']:.2%} of the change is left out" in ended.stdout
    tensors = load_file(run / "adapter/adapter_model.safetensors")
    assert {value.shape[0] for name, value in tensors.items() if "lora_A" in name} == {3}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["w=1.3"], "w=1.3: must be between 0 and 1 (weights=convex: w and 1-w); algorithm.extrapolate=true takes it"),
        (["w=[1.3,-0.3]"], "the weight of safer is -0.3, must be >= 0; algorithm.extrapolate=true takes it"),
        (["w=[1.3,-0.2]", "algorithm.extrapolate=true"], "weights sum to 1.1, must sum to 1"),
        (["w=[0,0]", "weights=vector"], "leaves nothing to add up: every weight is 0"),
        (["algorithm.rank=0"], "algorithm.rank=0: must be > 0"),
        (["algorithm.adapters.saffer=FOLDER"], "algorithm.adapters.saffer: no such objective; did you mean safer?"),
        (["algorithm.adapters.safer=nowhere"], "algorithm.adapters.safer=nowhere: no such folder"),
        (["algorithm.adapters.safer=FOLDER"], "FOLDER was trained with beta=0.5"),
        (["algorithm.adapters.safer=FOLDER", "algorithm.beta=0.5", "model.prompt_template='{raw_prompt}'"],
         "FOLDER: was trained with model.prompt_template='user: {raw_prompt} assistant: ', this run has '{raw"),
        (["algorithm.adapters.safer=DORA"], "DORA: also learns how long each row of a weight is (DoRA) (use_dora)"),
        (["algorithm=modpo", "w=1.3"], "w=1.3: must be between 0 and 1 (weights=convex: w and 1-w)\n"),
    ],
)  # fmt: skip
def test_refused_in_one_line_before_a_model_loads(base, tmp_path, capfd, given, said):
    folder = saved(base, tmp_path / "endpoint", {"target_modules": ATTENTION})
    save_card(folder, card_of(base))
    dora = saved(base, tmp_path / "dora", {"target_modules": ATTENTION, "use_dora": True})
    names = {"FOLDER": str(folder), "DORA": str(dora)}
    for name, path in names.items():
        given, said = [text.replace(name, path) for text in given], said.replace(name, path)
    capfd.readouterr()
    code = main(["algorithm=soup", f"paths.runs={tmp_path}/runs", f"paths.cache={tmp_path}/cache", *given])
    assert_refused(code, capfd, said)
    assert not (tmp_path / "cache").exists()


def card_of(base):
    template = "user: {raw_prompt} assistant: "
    return AdapterCard("safer", 0.5, base.id, template, "toy", {"better": 0.0, "safer": 1.0})
