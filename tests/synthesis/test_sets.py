"""From responses and verdicts to ranked sets and files: what is kept, what is dropped, and that both are counted."""

import json

import pyarrow.parquet as pq
import pytest
import yaml
from datasets import load_dataset

from alignlab.synthesis.card import card
from alignlab.synthesis.export import export
from alignlab.synthesis.sets import SynthesisStats, ranked_sets

ROLES = {
    "harmful": ["safe", *["corrected"] * 4, "harmful"],
    "benign": ["helpful", *["corrected"] * 4, "refused"],
}


def request(number, kind="harmful", prompt=None):
    return {
        "id": f"r{number:02d}",
        "group": f"g{number}",
        "kind": kind,
        "prompt": prompt or f"question {number}",
        "location": "made-up",
    }


def response(asked, rank, text=None, finish="stop"):
    return {
        "id": f"{asked['id']}/{rank}",
        "request_id": asked["id"],
        "kind": asked["kind"],
        "rank": rank,
        "role": ROLES[asked["kind"]][rank],
        "response": f"answer {rank} to {asked['id']}" if text is None else text,
        "finish": finish,
        "tokens": 4 + rank,
        **dict.fromkeys(
            ("cut_tokens", "at_clause", "correction_start", "affirmative_prefix", "correction_phrase", "revision")
        ),
        "seed": 0,
        "generator": "made-up",
    }


def verdict(asked, rank, corrected):
    return {"id": f"{asked['id']}/{rank}", "corrected": corrected, "reason": "made up"}


def made(requests, responses=None, verdicts=(), keep="none"):
    stats = SynthesisStats()
    rows = responses or [response(asked, rank) for asked in requests for rank in range(6)]
    return list(ranked_sets(requests, rows, verdicts, keep=keep, stats=stats)), stats


def test_a_set_holds_its_responses_best_first():
    asked = [request(1), request(2, "benign")]
    sets, stats = made(asked)
    assert [found.row()["role"] for found in sets] == [ROLES["harmful"], ROLES["benign"]]
    assert sets[0].texts == [f"answer {rank} to r01" for rank in range(6)]
    assert not stats.left_out


def test_fifteen_pairs_in_trls_columns():
    (found,), _ = made([request(1)])
    pairs = list(found.pairs("all", as_messages=False))
    assert len(pairs) == len({pair["id"] for pair in pairs}) == 15
    for pair in pairs:
        assert pair["chosen_rank"] < pair["rejected_rank"]
        assert pair["chosen"] == f"answer {pair['chosen_rank']} to r01"
        assert pair["rejected"] == f"answer {pair['rejected_rank']} to r01"
        assert pair["group"] == "g1"


@pytest.mark.parametrize(
    ("keep", "sets_left", "reason"),
    [("requests", 1, "the judge turned a response down"), ("ranks", 2, None)],
)
def test_a_correction_that_is_none_leaves_its_request_or_itself_out(keep, sets_left, reason):
    asked = [request(1), request(2)]
    verdicts = [verdict(one, rank, (one, rank) != (asked[0], 2)) for one in asked for rank in range(1, 5)]
    sets, stats = made(asked, verdicts=verdicts, keep=keep)
    assert len(sets) == sets_left
    assert stats.dropped == {"corrected 2: not a correction": 1}
    assert stats.left_out == ({reason: 1} if reason else {})
    if keep == "ranks":
        assert [row["rank"] for row in sets[0].responses] == [0, 1, 3, 4, 5]
        assert len(list(sets[0].pairs("all", as_messages=False))) == 10


def test_no_verdict_is_no_yes_and_has_a_count_of_its_own():
    asked = [request(1)]
    verdicts = [verdict(asked[0], 1, None), *(verdict(asked[0], rank, True) for rank in (2, 3, 4))]
    sets, stats = made(asked, verdicts=verdicts, keep="ranks")
    assert stats.dropped == {"corrected 1: no verdict": 1}
    assert [row["rank"] for row in sets[0].responses] == [0, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("keep", "said", "reason"),
    [
        ("requests", {1: None}, "the judge gave no verdict on a response"),
        ("requests", {1: None, 2: False}, "the judge turned a response down"),
        ("ranks", dict.fromkeys(range(1, 5)), "the judge gave no verdict on any correction"),
        ("ranks", {0: None}, "the judge gave no verdict on the safe response"),
    ],
)
def test_a_request_without_a_verdict_was_not_turned_down(keep, said, reason):
    asked = [request(1)]
    sets, stats = made(asked, verdicts=[verdict(asked[0], rank, one) for rank, one in said.items()], keep=keep)
    assert sets == []
    assert stats.left_out == {reason: 1}


def test_without_any_correction_there_is_no_set():
    asked = [request(1)]
    sets, stats = made(asked, verdicts=[verdict(asked[0], rank, False) for rank in range(1, 5)], keep="ranks")
    assert sets == []
    assert stats.left_out == {"the judge turned every correction down": 1}


def test_a_safe_response_that_is_not_safe_takes_its_set_with_it():
    asked = [request(1)]
    sets, stats = made(asked, verdicts=[verdict(asked[0], 0, False)], keep="ranks")
    assert sets == []
    assert stats.left_out == {"the judge turned the safe response down": 1}


def test_empty_and_equal_responses_and_copies_of_sets_are_left_out():
    asked = [request(number, prompt="the same question") for number in range(4)]
    texts = {0: "", 1: None, 2: "as another", 3: "as another"}
    rows = [
        response(one, rank, f"{rank}" if number in (2, 3) else texts[number] if rank == 0 else None)
        for number, one in enumerate(asked)
        for rank in range(6)
    ]
    rows[7]["response"] = rows[8]["response"]
    sets, stats = made(asked, rows)
    assert [found.request["id"] for found in sets] == ["r02"]
    assert stats.left_out == {
        "a response is empty": 1,
        "two responses are equal": 1,
        "made the same set as another": 1,
    }


def test_files_that_are_not_in_step_are_refused():
    asked = [request(1), request(2)]
    rows = [response(one, rank) for one in reversed(asked) for rank in range(6)]
    with pytest.raises(AssertionError):
        made(asked, rows)


def written(folder, requests, **options):
    sets, stats = made(requests)
    settings = {"strategy": "all", "conversations": False, **options}
    return export(iter(sets), folder, stats=stats, **settings), stats


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_both_formats_hold_the_same_pairs_and_trl_reads_them(tmp_path):
    written(tmp_path, [request(1), request(2), request(3, "benign")])
    pairs = lines(tmp_path / "pairs.jsonl")
    assert pq.read_table(tmp_path / "pairs.parquet").to_pylist() == pairs
    assert {pair["request_id"] for pair in pairs} == {"r01", "r02"}
    assert len(pairs) == 30
    assert len(lines(tmp_path / "control_pairs.jsonl")) == 5
    assert [row["kind"] for row in lines(tmp_path / "ranked.jsonl")] == ["harmful", "harmful", "benign"]
    table = load_dataset("parquet", data_files=str(tmp_path / "pairs.parquet"), cache_dir=str(tmp_path / "hf"))["train"]
    assert {"prompt", "chosen", "rejected"} <= set(table.column_names)


def test_conversations_become_messages(tmp_path):
    turns = [{"role": role, "content": role} for role in ("user", "assistant", "user")]
    written(tmp_path, [request(1), request(2, prompt=turns)], conversations=True)
    first, *_, last = pq.read_table(tmp_path / "pairs.parquet").to_pylist()
    assert first["prompt"] == [{"role": "user", "content": "question 1"}]
    assert first["chosen"] == [{"role": "assistant", "content": "answer 0 to r01"}]
    assert last["prompt"] == turns


def test_no_harmless_requests_no_files_of_theirs(tmp_path):
    files, _ = written(tmp_path, [request(1)])
    assert not list(tmp_path.glob("control*"))
    assert files == {"ranked": "ranked.jsonl", "pairs": "pairs.parquet"}


def test_what_a_killed_run_left_half_written_goes(tmp_path):
    for name in (".ranked.jsonl.abc", ".pairs.parquet.def", ".control_pairs.jsonl.0"):
        (tmp_path / name).write_text("half")
    (tmp_path / ".other").write_text("not ours")
    written(tmp_path, [request(1)])
    assert [file.name for file in tmp_path.glob(".*")] == [".other"]


def test_length_is_told_where_it_gives_the_ranking_away(tmp_path):
    _, stats = written(tmp_path, [request(1)])
    assert stats.length_bias()["shorter_chosen"] == 1
    assert "the shorter response is chosen in 100%" in stats.length_bias()["note"]
    level = [{**response(request(1), rank), "tokens": 9} for rank in range(6)]
    sets, stats = made([request(1)], level)
    stats.add(sets[0], "all")
    assert stats.length_bias()["note"] == "length says little of which response is chosen"


@pytest.mark.parametrize(("kind", "licence"), [("toy", "apache-2.0"), ("c2_eval", "cc-by-nc-4.0"), ("other", "other")])
def test_the_card_says_what_the_set_is(tmp_path, kind, licence):
    _, stats = written(tmp_path, [request(1), request(2, "benign")])
    text = card(kind=kind, settings={"seed": 0}, counts=stats.record(), strategy="all")
    _, header, body = text.split("---\n", 2)
    assert yaml.safe_load(header)["license"] == licence
    assert ("not-for-all-audiences" in yaml.safe_load(header)["tags"]) == (kind != "toy")
    assert "holds harmful text" in body
    for line in ("| harmful sets | 1 |", "| harmful pairs | 15 |", "| benign pairs | 5 |", "| 5 | 1 | 9 | 9.0 |"):
        assert line in body
