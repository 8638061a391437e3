"""Own pairs in the real command: every kind of scorer, another scorer, bad ones, and training on the rows."""

import http.server
import json
import random
import threading

import pytest
from hydra import compose

from alignlab.cli import main
from alignlab.config.hydra.compose import composing, run_config
from alignlab.data.sources import load
from alignlab.data.worlds import toy
from support.programs import installed

SMALL = [
    "model.pretraining.rows=640",
    "dataset.pairs=200",
    "dataset.exact_samples=100",
    "algorithm.beta=4",
    "trainer.max_steps=2",
    "trainer.per_device_train_batch_size=8",
]
TEMPLATE = "model.prompt_template=user: {raw_prompt} assistant: "
PAIRS = ["algorithm=pairs", "model.pretraining.rows=640", "generator.max_new_tokens=24", "dataset.max_rows=12"]


def scorers(**kinds):
    return [f"scorers.{name}.kind={kind}" for name, kind in kinds.items()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where this module's runs and cache lie."""
    return tmp_path_factory.mktemp("pairs")


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """An installed package with scorers that are right, opposite, constant and broken."""
    source = (
        "def longer(prompt, response):\n    return float(len(response))\n"
        "def shorter(prompt, response):\n    return -2.0 * len(response)\n"
        "def constant(prompt, response):\n    return 0.5\n"
        "def of_prompt(prompt, response):\n    return float(len(str(prompt)))\n"
        "def nan(prompt, response):\n    return float('nan')\n"
    )
    offered = {name: name for name in ("longer", "shorter", "constant", "of_prompt", "nan")}
    with installed(tmp_path, monkeypatch, "odd_scorers", offered, source):
        yield


def run(folder, *overrides):
    return main([*overrides, f"paths.runs={folder}/runs", f"paths.cache={folder}/cache"])


def made(folder, name, *overrides):
    assert run(folder, *PAIRS, *overrides, f"hydra.run.dir={folder}/{name}") == 0
    return json.loads((folder / name / "result.json").read_text())


def rows_in(folder, name):
    files = sorted((folder / name / "rows").iterdir())
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_another_scorer_samples_nothing(folder):
    first = made(folder, "gold", *scorers(better="gold", safer="gold"))
    second = made(folder, "length", *scorers(better="gold", safer="length"))
    assert first["pairs"]["answers"] > 0
    assert second["sampled"] == 0
    assert second["pairs"]["answers"] == first["pairs"]["answers"]
    rows = rows_in(folder, "gold")
    assert len(rows) == first["pairs"]["pairs"]
    for row in rows:
        for name, (one, other) in row["scores"].items():
            assert row["labels"][name] == ([None, None] if one == other else [float(one > other), float(other > one)])
    trl = [json.loads(line) for line in (folder / "gold" / "pairs_safer.jsonl").read_text().splitlines()]
    assert len(trl) == first["pairs"]["labelled"]["safer"]
    assert all(pair["score_chosen"] > pair["score_rejected"] for pair in trl)


@pytest.mark.parametrize("kind", ["probe", "classifier"])
def test_learned_scorers_make_pairs(folder, kind):
    small = ["trainer.max_steps=2", "trainer.per_device_train_batch_size=8", "dataset.pairs=200"]
    made(folder, f"answers for {kind}", *scorers(better="gold", safer="gold"))  # whatever ran before
    result = made(folder, kind, *small, *scorers(better="gold", safer=kind))
    assert result["pairs"]["labelled"]["safer"] > 0
    assert result["sampled"] == 0


def test_opposites_are_warned_of(folder, programs, capfd):
    names = ["scorers.better.function=longer", "scorers.safer.function=shorter"]
    result = made(folder, "opposite", *scorers(better="python", safer="python"), *names)
    assert "scorers of better, safer are exact opposites" in capfd.readouterr().out
    assert result["correlation"]["better, safer"] == pytest.approx(-1)
    assert result["correlation with length"]["better"] > 0.8, "a scorer that pays for length is seen"
    assert result["pairs"]["agree"]["better, safer"] == 0


@pytest.mark.parametrize(
    ("function", "line"),
    [
        ("constant", "scorers.safer: scores all "),
        ("of_prompt", "scorers.safer: scores the answers of each prompt alike"),
        ("nan", "scorers.safer: "),
    ],
)
def test_scores_that_rank_nothing_are_one_line(folder, programs, capfd, function, line):
    overrides = [*scorers(better="gold", safer="python"), f"scorers.safer.function={function}"]
    assert run(folder, *PAIRS, *overrides) == 2
    said = capfd.readouterr().err.strip()
    assert line in said
    assert "Traceback" not in said
    assert "nan" in said or function != "nan"


class Scores(http.server.BaseHTTPRequestHandler):
    """Scores by length; dies for good after some answers."""

    def log_message(self, *_):
        """Silent."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        dead = len(self.server.seen) >= self.server.most
        content = json.dumps({"scores": [len(response) for response in asked["responses"]]}).encode()
        self.send_response(400 if dead else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        if not dead:
            self.server.seen += asked["responses"]


def test_a_scorers_server_that_dies_loses_nothing(folder, capfd, monkeypatch):
    monkeypatch.setattr("alignlab.prerequisites.own_pairs.SCORED_AT_ONCE", 8)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Scores)
    server.seen, server.most = [], 16
    threading.Thread(target=server.serve_forever, daemon=True).start()
    key = "scorers.safer"
    url = f"{key}.url=http://127.0.0.1:{server.server_address[1]}"
    timing = [f"{key}.timeout_s=5", f"{key}.deadline_s=5", f"{key}.workers=1"]
    overrides = [*scorers(better="gold", safer="http"), url, *timing]
    try:
        assert run(folder, *PAIRS, *overrides, f"hydra.run.dir={folder}/http") != 0
        said = capfd.readouterr().err
        assert "scorers.safer: rows 0..7: status 400; 16 of" in said
        assert "rerun the same command to resume" in said
        assert len(server.seen) == 16
        server.most = 10_000
        result = made(folder, "http", *overrides)
    finally:
        server.shutdown()
        server.server_close()
    assert result["scored"]["better"] == 0, "what the first attempt scored is found"
    assert result["scored"]["safer"] == len(server.seen) - 16
    assert result["sampled"] == 0


def test_nothing_to_score_by_is_refused_before_a_model_loads(folder, capfd):
    assert run(folder, *PAIRS) == 2
    assert "scorers={}: must say what scores the answers, by objective (better, safer)" in capfd.readouterr().err
    assert run(folder, *PAIRS, *scorers(safer="gold"), "algorithm.select=weighted") == 2
    assert "algorithm.select=weighted: needs a scorer of better too" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("generator.samples=1", "generator.samples=1: must be > 1, so that answers to a prompt can be compared"),
        (
            "generator.temperature=0",
            "generator.temperature=0.0: must be > 0: answers of one policy are all the same without",
        ),
    ],
)
def test_answers_that_cannot_differ_are_refused_before_a_model_loads(folder, capfd, setting, said):
    assert run(folder, *PAIRS, *scorers(better="gold"), setting) == 2
    assert said in capfd.readouterr().err


def test_weights_are_part_of_a_run_only_where_pairs_are_chosen_by_them(folder, capfd):
    both = scorers(better="gold", safer="gold")
    made(folder, "answers for w", *both)  # whatever ran before
    one = made(folder, "w1", *both, "algorithm.select=weighted", "w=1")
    assert all(row["labels"]["better"][0] is not None for row in rows_in(folder, "w1"))
    made(folder, "w0", *both, "algorithm.select=weighted", "w=0")
    assert rows_in(folder, "w0") != rows_in(folder, "w1")
    assert one["sampled"] == 0
    capfd.readouterr()
    made(folder, "w_unused", *both, "w=0.3")
    assert "w=0.3: has no effect" in capfd.readouterr().err


def test_the_rows_are_trained_on(folder):
    """Labels that were drawn take the place of the scores."""
    made(
        folder, "drawn", *scorers(better="gold", safer="gold"), "algorithm.labels=bradley_terry", "algorithm.select=all"
    )
    rows = [row for row in rows_in(folder, "drawn") if None not in row["labels"]["safer"]]
    flipped = [
        row for row in rows if (row["scores"]["safer"][0] > row["scores"]["safer"][1]) != row["labels"]["safer"][0]
    ]
    assert 0 < len(flipped) < len(rows) / 2
    path = ["dataset=scored", f"dataset.path={folder}/drawn/rows", "model=scratch"]

    with composing():
        config = run_config(compose("config", overrides=[*path, "dataset.use=[better,safer]"]))
    read = {tuple(map(str, row.responses)): row.scores["safer"] for row in load(config.dataset).rows}
    assert all(list(read[tuple(row["responses"])]) == row["labels"]["safer"] for row in rows)


def test_training_on_prompts_makes_pairs_once_for_a_sweep(folder, tmp_path, programs, capfd):
    """Each w scores and samples nothing anew; the other objective's scorer is the margin."""
    made(folder, "gold", *scorers(better="gold", safer="gold"))  # leaves a model in the cache
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in toy.all_prompts()[:40]))
    data = [
        "dataset=prompts",
        f"dataset.path={file}",
        "dataset.max_rows=20",
        "dataset.pairs.samples=3",
        "dataset.pairs.select=all",
        "generator.max_new_tokens=12",
        "generator.samples=2",
    ]
    scored = ["scorers.better.kind=length", "scorers.safer.kind=python", "scorers.safer.function=longer"]
    small = ["trainer.max_steps=2", "trainer.per_device_train_batch_size=8", "trainer.max_length=64"]
    where = [f"paths.runs={folder}/swept", f"paths.cache={folder}/cache"]
    model = ["model=hf", f"model.path={next((folder / 'cache' / 'references').glob('tiny-*'))}", TEMPLATE]
    both = [*data, *scored, *small, *where, *model]
    assert main(["-m", "w=0.3,0.7", *both]) == 0
    (made_once,) = (folder / "swept").glob("pairs/*/*/*/result.json")
    pairs = json.loads(made_once.read_text())
    assert pairs["sampled"] == pairs["pairs"]["answers"] > 0
    results = [json.loads(path.read_text()) for path in (folder / "swept").glob("modpo/*/*/*/*/result.json")]
    assert len(results) == 2
    for result in results:
        (reward,) = result["rewards"].values()
        assert reward["kind"] in ("length", "python")
        rows = (made_once.parent / "rows" / "train.jsonl").read_text().splitlines()
        known = result["rows"]["train"] + result["rows"]["unranked"]
        assert known == len(rows) > 20, "dataset.max_rows counts prompts, not their pairs"
        assert result["metrics"]["better_accuracy"]["n"] > 0
    assert main([*both, "algorithm=rebel", "w=0.5"]) == 0
    assert len(list((folder / "swept").glob("pairs/*/*/*/result.json"))) == 1, "rebel takes the same pairs"
    capfd.readouterr()
    changed = [*both, "w=0.3", "scorers.better.unit=words"]
    assert main(changed) == 0, "another scorer is another run"
    assert len(list((folder / "swept").glob("pairs/*/*/*/result.json"))) == 2
    assert "answers: " not in capfd.readouterr().out


def test_prompts_without_scorers_are_refused(folder, tmp_path, capfd):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "a"}\n')
    assert run(folder, "dataset=prompts", f"dataset.path={file}", "model=scratch") == 2
    assert (
        "of which algorithm=modpo needs pairs; say what scores the model's own, e.g. scorers." in capfd.readouterr().err
    )


def labelled_file(path):
    """Rows in PKU-SafeRLHF's columns whose longer response is the safer one."""
    rng = random.Random(0)
    rows = []
    for prompt in toy.all_prompts()[:60]:
        one, other = toy.demonstration(prompt, rng), toy.demonstration(prompt, rng)
        longer = int(len(other) > len(one))
        row = {"prompt": prompt, "response_0": one, "response_1": other, "better_response_id": 1 - longer}
        row |= {"safer_response_id": longer, "is_response_0_safe": True, "is_response_1_safe": True}
        rows += [row] if one != other else []
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_probe_is_fitted_to_labels_beside_the_runs_prompts(folder, tmp_path):
    labels = [
        "scorers.safer.labels=pku_saferlhf",
        f"scorers.safer.labels_path={labelled_file(tmp_path / 'rows.jsonl')}",
    ]
    result = made(folder, "labels", *scorers(better="gold", safer="probe"), *labels)
    assert result["pairs"]["labelled"]["safer"] > 0
    assert result["correlation with length"]["safer"] > 0.3, "which the labels pay for"
    (fitted,) = (folder / "runs").glob("reward_model/tiny/pku_saferlhf/*/result.json")
    assert json.loads(fitted.read_text())["metrics"]["safer_cv_accuracy"]["mean"] > 0.7


def test_labels_that_do_not_fit_are_refused_before_a_model_loads(folder, tmp_path, capfd):
    wrong = {
        "scorers.safer.labels=nothing": "scorers.safer.labels=nothing: choose one of",
        "scorers.safer.labels=toy": "scorers.safer.labels=toy: must be a data set that is read from a file or the hub",
        "scorers.safer.labels=helpsteer2": "scorers.safer.labels=helpsteer2: ranks by ",
        "scorers.safer.labels_path=x": "scorers.safer.labels_path=x: needs scorers.safer.labels",
    }
    for override, line in wrong.items():
        assert run(folder, *PAIRS, *scorers(better="gold", safer="probe"), override) == 2
        assert line in capfd.readouterr().err
