"""A judge as a scorer that answers for some responses only: the others are counted apart, through to the page."""

import contextlib
import csv
import json

import pytest

from alignlab.cli import main
from alignlab.data.worlds import toy
from support.pages import Parsed
from support.servers import FaultServer

SMALL = [
    "model=hf",
    "model.prompt_template='user: {raw_prompt} assistant: '",
    "dataset=pku_saferlhf",
    "trainer.max_steps=1",
    "trainer.max_length=64",
    "generator.samples=3",
    "generator.prompts=8",
    "generator.max_new_tokens=8",
]


@pytest.fixture(scope="module")
def mixed(base, tmp_path_factory):
    """A sweep of one policy whose judge cuts its answer for half of all responses: (its folder, its output)."""
    place = tmp_path_factory.mktemp("unscored")
    row = {"response_0": "mind the red first", "response_1": "what a lovely red thing", "safer_response_id": 0}
    rows = [json.dumps({"prompt": prompt, "better_response_id": 1, **row}) for prompt in toy.all_prompts()[:80]]
    (place / "rows.jsonl").write_text("\n".join(rows) + "\n")
    said = place / "said.txt"
    with FaultServer(fault="length", share=0.5, always=True) as server:
        judge = ["kind=judge", "judge=openai", f"base_url={server.url}", "model=m", "api_key_env=null"]
        given = [f"scorers.better.{one}" for one in judge] + ["scorers.safer.kind=length"]
        where = [f"model.path={base.path}", "dataset.path=rows.jsonl", "paths.runs=runs", "paths.cache=cache"]
        with said.open("w") as stream, contextlib.chdir(place), contextlib.redirect_stdout(stream):
            assert main(["-m", "algorithm=dpo", "seed=0,1", *SMALL, *given, *where]) == 0
    return place, said.read_text()


def results_of(place):
    folders = [file.parent for file in sorted(place.glob("runs/**/result.json"))]
    found = {folder: json.loads((folder / "result.json").read_text()) for folder in folders}
    return {folder: one for folder, one in found.items() if "better_reward" in one["metrics"]}


def test_each_result_counts_them_with_their_reasons(mixed):
    found = results_of(mixed[0])
    assert len(found) > 2, "of the reference and two policies"
    for folder, one in found.items():
        scores = [json.loads(line)["better_reward"] for line in (folder / "scores.jsonl").read_text().splitlines()]
        missing = scores.count(None)
        assert 0 < missing < len(scores) == 24
        metric = one["metrics"]["better_reward"]
        assert (metric["n"], metric["missing"]) == (24 - missing, missing)
        assert one["scorers"]["better"]["unscored"] == {"length": missing}
        assert "unscored" not in one["scorers"]["safer"]
        assert "missing" not in one["metrics"]["safer_reward"]


def test_table_csv_and_page_show_the_count(mixed):
    place, said = mixed
    (front,) = place.glob("runs/**/front.csv")
    with front.open() as stream:
        rows = list(csv.DictReader(stream))
    counts = {row["folder"]: int(row["better_reward_missing"]) for row in rows}
    own = {(front.parent / folder).resolve(): count for folder, count in counts.items()}
    results = {folder.resolve(): one["metrics"] for folder, one in results_of(place).items()}
    assert own == {folder: results[folder]["better_reward"]["missing"] for folder in own}
    assert len(own) > 2
    assert {row["safer_reward_missing"] for row in rows} == {"0"}
    for count in counts.values():
        assert f"scorers.better: {count} of 24 responses are unscored, and in no mean (" in said
        assert f"({count} unscored)" in " ".join(said.split())
    assert "unscored: responses without a score" in " ".join(said.split())
    policies = Parsed(front.with_name("front.html")).data("data")["policies"]
    scored = {one["evaluation"] or one["run"]: one["metrics"]["better_reward"][5] for one in policies}
    assert scored == counts
    assert {one["metrics"]["safer_reward"][5] for one in policies} == {0}
