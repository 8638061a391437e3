"""A finished evaluation whose scorers or files became others under their old names: measured again, not sampled."""

import contextlib
import json
import shutil

import pytest
import torch

from alignlab.cli import main
from alignlab.data.worlds import toy
from support.beaver import checkpoint, head_of, small_llama

SMALL = [
    "algorithm=evaluate",
    "model=hf",
    "model.prompt_template='user: {raw_prompt} assistant: '",
    "dataset=pku_saferlhf",
    "trainer.max_length=64",
    "generator.samples=2",
    "generator.prompts=3",
    "generator.max_new_tokens=8",
    "scorers.better.kind=beaver",
    "scorers.better.dtype=float32",
]
SAFER = ["scorers.safer.kind=python"]


@pytest.fixture(scope="module")
def root(base, tmp_path_factory):
    """A base model, rows, and a scorer's folder."""
    root = tmp_path_factory.mktemp("again")
    (root / "model").symlink_to(base.path)
    row = {"response_0": "mind the red first", "response_1": "what a lovely red thing", "safer_response_id": 0}
    rows = [json.dumps({"prompt": prompt, "better_response_id": 1, **row}) for prompt in toy.all_prompts()[:80]]
    (root / "rows.jsonl").write_text("\n".join(rows) + "\n")
    checkpoint(small_llama(), root / "scorer")
    return root


def evaluated(root, *given):
    """Result and rows of scores.jsonl after a command that must end well."""
    here = [f"model.path={root}/model", f"dataset.path={root}/rows.jsonl", f"scorers.better.path={root}/scorer"]
    with contextlib.chdir(root):
        assert main([*SMALL, *here, *given, "paths.runs=runs", f"paths.cache={root}/cache"]) == 0
    (file,) = (root / "runs").rglob("result.json")
    rows = [json.loads(line) for line in (file.parent / "scores.jsonl").read_text().splitlines()]
    return json.loads(file.read_text()), rows


@pytest.fixture
def drawn(monkeypatch):
    """Groups of the prompts that are sampled from here on."""
    import alignlab.evaluation.scored as scored

    draw, groups = scored._draw, []

    def counted(policy, requests, *rest):
        groups.extend(request.id for request in requests)
        draw(policy, requests, *rest)

    monkeypatch.setattr(scored, "_draw", counted)
    return groups


def test_a_scorer_whose_folder_holds_other_weights_scores_again(root, drawn):
    shutil.rmtree(root / "runs", ignore_errors=True)  # the module's other tests leave the same run
    before, first = evaluated(root, *SAFER)
    assert len(drawn) == 3
    (root / "scorer" / "model.safetensors").unlink()
    (root / "scorer" / "config.json").unlink()
    llama = small_llama()
    moved = head_of() | {"score_head.bias": torch.tensor([0.75 + 2.5])}  # one unit: the normaliser divides by 2.5
    checkpoint(llama, root / "other", head=moved)
    for file in (root / "other").iterdir():
        file.rename(root / "scorer" / file.name)
    after, second = evaluated(root, *SAFER)
    assert len(drawn) == 3, "nothing is sampled again"
    assert [row["better_reward"] for row in second] == pytest.approx([row["better_reward"] + 1 for row in first])
    assert after["inputs"]["scorers"] != before["inputs"]["scorers"]
    stamp = after["seconds"]
    assert evaluated(root, *SAFER)[0]["seconds"] == stamp, "control: done before"


def test_a_scorer_that_is_no_longer_asked_leaves_no_column(root, drawn):
    assert all("safer_reward" in row for row in evaluated(root, *SAFER)[1]), "control"
    drawn.clear()
    result, rows = evaluated(root)
    assert not drawn
    assert "safer_reward" not in result["metrics"]
    assert set(result["scorers"]) == {"better"}
    assert all("better_reward" in row and "safer_reward" not in row for row in rows)


def test_a_file_of_harmless_prompts_or_texts_that_changed_is_measured_anew(root, drawn):
    asked = toy.all_prompts()[80:84]
    (root / "benign.csv").write_text("prompt\n" + "".join(f"{prompt}\n" for prompt in asked[:2]))
    (root / "own.txt").write_text(f"{asked[0]}\n\n{asked[1]}")
    files = [f"dataset.benign={root}/benign.csv", f"dataset.text={root}/own.txt"]
    before, _ = evaluated(root, *files)
    assert [before["metrics"][name]["groups"] for name in ("over_refusal", "text_loss")] == [2, 2]
    drawn.clear()
    (root / "benign.csv").write_text("prompt\n" + "".join(f"{prompt}\n" for prompt in asked))
    (root / "own.txt").write_text(f"{asked[0]}\n\n{asked[1]}\n\n{asked[2]}")
    after, _ = evaluated(root, *files)
    assert [after["metrics"][name]["groups"] for name in ("over_refusal", "text_loss")] == [4, 3]
    assert len(drawn) == 4, "harmless prompts alone are asked"
