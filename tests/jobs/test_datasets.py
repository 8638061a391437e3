"""Data of a user's own, through whole runs: bad rows are left out and counted, every pair of a ranking is used."""

import json

import pytest

from alignlab.cli import main

TINY = (
    "model=scratch",
    "model.architecture.hidden_size=32",
    "model.architecture.intermediate_size=32",
    "model.architecture.num_hidden_layers=1",
    "model.architecture.vocab_size=300",
    "model.pretraining.rows=40",
    "model.pretraining.num_train_epochs=1",
    "trainer.max_steps=2",
    "trainer.max_length=128",
    "dataset.test_share=0.3",
)


@pytest.fixture
def result_of(tmp_path, monkeypatch, capfd):
    """Runs DPO on a file of rows; its result, and what was printed."""
    monkeypatch.chdir(tmp_path)

    def run(choice, lines, *overrides):
        (tmp_path / "ranked.jsonl").write_bytes(b"\n".join(lines))
        paths = [f"paths.runs={tmp_path}/runs", f"paths.cache={tmp_path}/cache"]
        line = [
            "algorithm=dpo",
            f"dataset={choice}",
            f"dataset.path={tmp_path}/ranked.jsonl",
            *TINY,
            *overrides,
            *paths,
        ]
        code = main(line)
        printed = capfd.readouterr()
        assert code == 0, printed.err
        (file,) = tmp_path.glob(f"runs/dpo/scratch/{choice}/*/result.json")
        return json.loads(file.read_text()), printed.out

    return run


def row(number, **changes):
    made = {"prompt": f"where is box {number}", "response_0": f"on table {number}", "response_1": "who knows"}
    return json.dumps({**made, "better_response_id": 0, "safer_response_id": number % 2, **changes}).encode()


def test_bad_rows_are_left_out_and_counted_in_the_result(result_of):
    lines = [row(number) for number in range(60)]
    lines[7], lines[11], lines[50] = b'{"torn', row(11, response_0=""), row(50, better_response_id=None)
    lines += [row(3), row(61, prompt="box " * 200)]
    result, printed = result_of("pku_saferlhf", lines, "dataset.on_bad_row=drop")
    bad = {"not_json": 1, "empty": 1, "null": 1, "duplicate": 1, "too_long": 1}
    assert result["data"] == {"rows": 62, "records": 57, "bad": bad, "left_out": {}, "notes": {}, "unread": []}
    assert "left out 1 torn or no JSON, 1 null, 1 empty text, 1 prompt too long, 1 repeated row" in printed.replace(
        "\n", " "
    )
    rows, metrics = result["rows"], result["metrics"]
    held_out = metrics["better_accuracy"]["n"]
    assert rows["train"] + held_out == 57
    assert held_out > 0
    assert metrics["safer_accuracy"]["n"] == held_out
    assert (rows["unranked"], rows["too_long"]) == (0, 0)


def test_every_pair_of_a_ranking_is_trained_on_and_measured(result_of):
    lines = [
        json.dumps({"prompt": f"where is box {number}", "responses": [f"answer {rank} {number}" for rank in range(6)]})
        for number in range(30)
    ]
    result, _ = result_of("c2_syn", [line.encode() for line in lines])
    assert result["data"]["records"] == 30
    train, held_out = result["rows"]["train"], result["metrics"]["safer_accuracy"]["n"]
    assert train + held_out == 30 * 15
    assert train % 15 == held_out % 15 == 0, "the pairs of a request stay together"


def test_conversations_are_trained_on(result_of):
    talk = "\n\nHuman: hello {0}\n\nAssistant: what now\n\nHuman: where is box {0}\n\nAssistant: {1}"
    lines = [
        json.dumps({"chosen": talk.format(number, "on the table"), "rejected": talk.format(number, "no")}).encode()
        for number in range(30)
    ]
    result, _ = result_of("hh_rlhf", lines)
    assert result["rows"]["train"] + result["metrics"]["preferred_accuracy"]["n"] == 30
