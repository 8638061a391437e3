"""front.html: it holds what it should, its texts are data, and nothing in it acts or loads but its own script."""

import dataclasses
import gzip
import hashlib
import json
import shutil
import subprocess
from importlib.resources import files

import numpy as np
import pytest
from hydra import compose

from alignlab.config.hydra.compose import composing, register, run_config
from alignlab.front import page as front_page
from alignlab.front.collect import FailedRun, collect
from alignlab.front.comparisons import comparisons, sentences
from alignlab.front.figures import STYLES
from alignlab.front.metrics import ExactCurve
from alignlab.front.page import Names, write_front_page
from alignlab.front.picture import front_figure
from alignlab.front.said import learning_curves, read_said
from alignlab.front.table import write_csv
from alignlab.io.atomic import write_json
from alignlab.io.hashes import sealed
from alignlab.pages import Link
from alignlab.publish.policies import policies_of
from support.fronts import AXES, write_evaluated, write_front, write_large_front, write_run
from support.pages import HOSTILE, Parsed, check_safe

LOGIC = files("alignlab.pages") / "static" / "front_logic.js"


def written(folders, path, **changed):
    known = {"names": Names("toy", "tiny"), "exact": None, "reference": None}
    return write_front_page(collect(folders), path, **{**known, **changed})


def test_it_holds_every_policy_prompt_and_sample(tmp_path):
    runs = write_front(tmp_path / "runs")
    weights = np.array([[0.1, 0.9], [0.9, 0.1]])
    exact = ExactCurve(tuple(AXES.values()), weights, 2 * weights, np.array([0.3, 0.4]))
    path = written(runs, tmp_path / "front" / "front.html", exact=exact, reference=[0.0, 0.5])
    page = check_safe(path)
    data = page.data("data")
    assert [policy["w"] for policy in data["policies"]] == ["0.1", "0.5", "0.9"]
    assert data["axes"] == list(AXES.values())
    assert data["reference"] == {"helpful": 0.0, "safe": 0.5}
    assert data["exact"]["values"] == {"helpful": [0.2, 1.8], "safe": [1.8, 0.2], "kl": [0.3, 0.4]}
    assert {one["name"]: one["better"] for one in data["metrics"]} == {"helpful": 1, "safe": 1, "kl": -1}
    first = data["policies"][0]
    assert (first["run"], first["adapter"]) == ("../runs/w=0.1", "../runs/w=0.1/adapter")
    assert first["settings"] == {"w": "0.1", "seed": "0", "dataset.kind": "toy"}
    recorded = json.loads((runs[0] / "result.json").read_text())["metrics"]["helpful"]
    assert first["metrics"]["helpful"][:4] == [recorded["mean"], *recorded["ci95"], 12]
    assert [one["text"] for one in page.data("prompts")] == [f"prompt {index}" for index in range(6)]
    said = page.data("policy-0")
    assert said["response"][:2] == ["answer 0 of w=0.1 to 0", "answer 1 of w=0.1 to 0"]
    assert said["prompt"] == [index // 2 for index in range(12)]
    assert said["scores"]["helpful"][:2] == [0.2, 1.2]
    assert said["curves"]["step"] == list(range(1, 10))
    assert data["folded"] is False
    assert (data["categories"], data["scores"], data["curves"]) == ([], ["helpful", "safe", "kl"], ["loss"])


def test_a_recorded_config_gives_the_command_that_makes_it_again(tmp_path):
    """As a run leaves it: with a hash of its own, which is no setting."""
    register()
    with composing():
        config = run_config(compose("config", overrides=["w=0.3", "trainer.max_steps=7"]))
    (run,) = write_front(tmp_path / "runs", ws=(0.3,))
    write_json(run / "config.json", sealed(dataclasses.asdict(config)))
    (policy,) = Parsed(written([run], tmp_path / "front.html")).data("data")["policies"]
    assert policy["command"] == "python -m alignlab w=0.3 trainer.max_steps=7"
    assert policy["settings"]["trainer.max_steps"] == "7"
    assert "sha256" not in policy["settings"]


def test_an_evaluated_policy_is_told_by_the_run_that_made_it(tmp_path):
    """Settings, command, adapter, cost and curves are the training's; samples are the evaluation's; both are linked."""
    runs = tmp_path / "runs"
    *evaluations, reference = write_evaluated(runs)
    register()
    with composing():
        for folder in evaluations:
            typed = [f"w={folder.name[2:]}", f"paths.runs={runs}"]
            trained = run_config(compose("config", overrides=typed))
            write_json(runs / "modpo" / folder.name / "config.json", sealed(dataclasses.asdict(trained)))
            adapter = runs / "modpo" / folder.name / "adapter"
            made = [*typed, "algorithm=evaluate", f"algorithm.adapter='{adapter}'"]
            evaluated = run_config(compose("config", overrides=made))
            write_json(folder / "config.json", sealed(dataclasses.asdict(evaluated)))
        plain = run_config(compose("config", overrides=["w=0.1", "algorithm=evaluate", f"paths.runs={runs}"]))
    write_json(reference / "config.json", sealed(dataclasses.asdict(plain)))
    page = check_safe(written([*evaluations, reference], tmp_path / "front" / "front.html"))
    data = page.data("data")
    first, _, last = data["policies"]
    assert (first["run"], first["evaluation"]) == ("../runs/modpo/w=0.1", "../runs/evaluate/w=0.1")
    assert first["adapter"] == "../runs/modpo/w=0.1/adapter"
    assert first["command"] == "python -m alignlab w=0.1"
    assert first["seconds"] == 40.0
    assert first["metrics"]["training_seconds"][0] == 30.0
    assert first["settings"]["algorithm.name"] == "modpo"
    assert (first["samples"], len(page.data("policy-0")["response"])) == (4, 4)
    assert "loss" in page.data("policy-0")["curves"]
    assert (last["run"], last["evaluation"]) == ("../runs/evaluate/reference", None)
    assert last["command"] == "python -m alignlab algorithm=evaluate", "which has no w"
    assert "w" not in last["settings"]
    published = policies_of(collect([*evaluations, reference]))
    assert [one.command for one in published] == [one["command"] for one in data["policies"]]
    assert str(tmp_path) not in json.dumps(data)


def test_the_page_holds_the_rows_of_front_csv(tmp_path):
    collection = collect(write_evaluated(tmp_path / "runs"))
    (tmp_path / "front").mkdir()
    path = written([point.folder for point in collection.points], tmp_path / "front" / "front.html")
    held = "".join(Parsed(path).data("data")["csv"])
    assert held == write_csv(collection, tmp_path / "front" / "front.csv").read_text()


def test_the_cost_of_the_training_is_a_metric(tmp_path):
    runs = [
        *write_front(tmp_path / "a", ws=(0.1,), seconds={"total": 40.0, "training": 30.0}),
        *write_front(tmp_path / "b", ws=(0.5,), seconds={"total": "<b>", "training": float("nan")}),
    ]
    data = Parsed(written(runs, tmp_path / "front.html")).data("data")
    assert data["policies"][0]["metrics"]["training_seconds"] == [30.0, None, None, 1, None, 0]
    assert data["policies"][0]["seconds"] == 40.0
    assert "training_seconds" not in data["policies"][1]["metrics"], "unknown"
    assert data["policies"][1]["seconds"] is None
    assert [one["better"] for one in data["metrics"] if one["name"] == "training_seconds"] == [-1]


def test_a_paired_difference_between_any_two(tmp_path):
    data = Parsed(written(write_front(tmp_path / "runs"), tmp_path / "front.html")).data("data")
    found = {(one["a"], one["b"], one["metric"]): one for one in data["differences"]}
    assert len(found) == 3 * 3  # pairs times metrics
    one = found[0, 2, "helpful"]
    assert (one["mean"], one["groups"]) == (pytest.approx(1.6), 6)
    assert one["low"] < 1.6 < one["high"]


def test_hostile_text_stays_text(tmp_path):
    samples = [(text, text, {"helpful": 1.0 + index, "safe": float(index % 3)}) for index, text in enumerate(HOSTILE)]
    runs = [
        write_run(
            tmp_path / "runs" / f"{index} <img src=x onerror=alert(1)> </script>".replace("/", "_"),
            w=w,
            samples=samples,
            recipe={"<b>": text},
        )
        for index, (w, text) in enumerate(zip((0.1, 0.9), HOSTILE, strict=False))
    ]
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "result.json").write_text(
        json.dumps({"status": "failed", "error": HOSTILE[1] + "\x1b[31m"})
    )
    path = written([*runs, tmp_path / "runs" / "broken"], tmp_path / "front.html", names=Names(HOSTILE[0], HOSTILE[2]))
    page = check_safe(path)
    assert {tag for tag, _ in page.tags} <= {
        "html", "head", "meta", "title", "style", "body", "header", "h1", "nav", "a", "main", "noscript", "p",
        "section", "div", "label", "select", "option", "input", "details", "summary",
        "span", "output", "button", "script",
    }  # fmt: skip
    assert "<script>alert(1)</script>" in "".join(page.texts)
    assert not set("\x00\x07\x08\x1b\u202e\u2066\u2069") & set(path.read_text(encoding="utf-8"))
    asked = [one["text"] for one in page.data("prompts")]
    assert asked[: len(HOSTILE) - 1] == [front_page.visible(text) for text in HOSTILE[:-1]]
    assert page.data("policy-0")["response"][1] == HOSTILE[1]
    assert page.data("data")["failures"][0]["error"].startswith("</script><script>alert(1)</script>\\u001b")


def test_the_check_sees_what_would_act(tmp_path):
    """Control: an added script, a changed script and a remote address are seen."""
    path = written(write_front(tmp_path / "runs"), tmp_path / "front.html")
    text = path.read_text()
    for wrong in (
        text.replace("</body>", "<script>alert(1)</script></body>"),
        text.replace('"use strict";', '"use strict"; '),
        text.replace("<nav>", "<nav><a href='https://example.org'>x</a>"),
        text.replace("<main", "<main onclick='alert(1)'"),
    ):
        path.write_text(wrong)
        with pytest.raises(AssertionError):
            check_safe(path)


def test_real_data_is_folded_and_private(tmp_path):
    path = written(write_front(tmp_path / "runs", kind="pku_saferlhf"), tmp_path / "front.html")
    assert Parsed(path).data("data")["folded"] is True
    assert path.stat().st_mode & 0o077 == 0


def test_a_run_without_samples_has_a_policy(tmp_path):
    (run, *others) = write_front(tmp_path / "runs")
    for name in ("generations.jsonl", "scores.jsonl", "metrics.jsonl", "config.json"):
        (run / name).unlink()
    page = check_safe(written([run, *others], tmp_path / "front.html"))
    assert page.data("data")["policies"][0]["samples"] == 0
    assert page.data("policy-0") == {"prompt": [], "response": [], "scores": {}, "curves": {}}
    assert page.data("data")["folded"] is True, "unknown is not harmless"


def test_a_page_keeps_its_size(tmp_path, monkeypatch):
    runs = write_front(tmp_path / "runs", prompts=40)
    monkeypatch.setattr(front_page, "MOST_BYTES", 2500)
    page = Parsed(written(runs, tmp_path / "front.html"))
    counts = page.data("data")["prompts"]
    assert counts["all"] == 40
    assert 0 < counts["kept"] < 40
    assert len(page.data("prompts")) == counts["kept"]
    assert max(page.data("policy-1")["prompt"]) == counts["kept"] - 1


def test_twenty_policies_of_two_hundred_prompts_stay_below_15_mb(tmp_path):
    """Made-up samples of 50 random words each, which compress badly; none is left out."""
    path = write_large_front(tmp_path)
    assert path.stat().st_size <= 15_000_000
    page = Parsed(path)
    assert page.data("data")["prompts"] == {"all": 200, "kept": 200}
    assert len(page.data("policy-19")["response"]) == 800


def test_categories_messages_and_unknown_scores(tmp_path):
    user, system = {"role": "user", "content": "hi"}, {"role": "system", "content": "s"}
    rows = [
        {"id": "a", "prompt": [user], "response": "x", "category": ["c", "d"]},
        {"id": "b", "prompt": [system, user], "response": "y"},
    ]
    text = "\n".join(map(json.dumps, rows)) + '\n{"id": "torn'
    (tmp_path / "generations.jsonl").write_text(text)
    (tmp_path / "scores.jsonl").write_text('{"id": "a", "safe": null}\n{"id": "b", "safe": 2, "note": "z"}\n')
    said = read_said(tmp_path)
    assert list(said.texts.values()) == ["hi", "system: s\n\nuser: hi"]
    assert list(said.categories.values()) == ["c, d"]
    assert said.scores == {"safe": [None, 2.0]}
    assert list(said.means("safe").values()) == [2.0]


def test_a_long_curve_is_thinned_and_ends_at_its_end(tmp_path):
    rows = [{"step": step, "loss": 1.0} for step in range(1, 1001)] + [{"step": 1000, "train_runtime": 3.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    curve = learning_curves(tmp_path)
    assert len(curve["step"]) <= 300
    assert curve["step"][-1] == 1000
    assert "train_runtime" not in curve


def test_links_stay_in_the_folder_tree():
    for href in ("https://example.org", "javascript:alert(1)", "/etc/passwd", "//example.org"):
        with pytest.raises(ValueError, match="relative"):
            Link("x", href)
    assert Link("x", "../index.html").href == "../index.html"


def test_the_library_is_the_one_that_the_readme_names():
    folder = files("alignlab.pages") / "vendor"
    (packed,) = [file for file in folder.iterdir() if file.name.endswith(".gz")]
    code = gzip.decompress(packed.read_bytes())
    assert hashlib.sha256(code).hexdigest() in (folder / "README.md").read_text()
    assert "MIT License" in (folder / "LICENSE").read_text()
    assert b"</script" not in code.lower()
    assert b"<!--" not in code


def test_failed_runs_alone_make_no_page_of_policies(tmp_path):
    found = collect([tmp_path / "missing"])
    assert found.failures == (FailedRun(tmp_path / "missing", "missing", "no result.json"),)
    page = check_safe(write_front_page(found, tmp_path / "x.html", names=Names("a", "b"), exact=None, reference=None))
    assert page.data("data")["policies"] == []


@pytest.fixture
def logic():
    """Evaluate an expression with the page's logic, `l`, under node."""
    if shutil.which("node") is None:
        pytest.skip("no node")

    def evaluate(expression):
        code = f"const l = require({json.dumps(str(LOGIC))}); console.log(JSON.stringify({expression}))"
        return json.loads(subprocess.run(["node", "-e", code], capture_output=True, text=True, check=True).stdout)

    return evaluate


def test_the_logic(logic):
    policies = [
        {"metrics": {"a": [a, a - 0.1, a + 0.1, 9, 9], "kl": [kl, None, None, 9, 9]}}
        for a, kl in ((1, 3), (2, 2), (0, 9))
    ]
    text = json.dumps(
        [{**policy, "weights": {"x": w, "y": 1 - w}} for w, policy in zip((0.9, 0.1, 0.5), policies, strict=True)]
    )
    assert logic(f"l.best({text}, ['a', 'kl'], [1, -1]).map((p) => p.metrics.a[0])") == [2]
    assert logic(f"l.best({text}, ['a', 'kl'], [1, 1]).map((p) => p.metrics.a[0])") == [1, 2, 0]
    assert logic(f"l.best({text}, ['a', 'kl'], [1, 0]).map((p) => p.metrics.a[0])") == [2], "unknown does not count"
    assert logic(f"{text}.map((p) => l.meets(p, 'kl', 2, -1))") == [False, True, False]
    assert logic(f"{text}.map((p) => l.meets(p, 'a', 1.95, 1, true))") == [False, False, False]
    assert logic(f"l.meets({text}[0], 'kl', 5, -1, true)") is None, "an unknown interval meets nothing"
    assert logic(f"l.line({text}, 'a', 'kl', (p) => p.metrics.kl[0] < 9)") == [
        [2, 2, True],
        [0, 9, False],
        [1, 3, True],
    ]
    assert logic("[l.height(3, [1, 5], 1), l.height(1, [1, 5], -1), l.height(1, [1, 1], 1)]") == [0.5, 1, 0.5]
    assert logic("[l.show(null), l.show(0), l.show(0.0000123)]") == ["unknown", "0.000", "0.0000123"]
    assert logic("[['a'], ['a', 'b'], ['b', 'a']].map((c) => l.click(c, 'c'))") == [["a", "c"], ["a", "c"], ["b", "c"]]
    assert logic("l.click(['a', 'b'], 'a')") == ["b"]
    assert logic("l.plain('<b>&amp;')") == "&lt;b&gt;&amp;amp;"


def test_prompts_are_searched_and_sorted(logic):
    side = {"prompt": [0, 1, 1, 2], "response": ["one", "two", "Three", "x"], "scores": {"s": [1, 2, None, 0]}}
    other = {"prompt": [0, 1, 2], "response": ["o", "t", "x"], "scores": {"s": [4, 2.5, -5]}}
    prompts = [{"text": "A", "category": "c"}, {"text": "B", "category": "d"}, {"text": "C", "category": "d"}]
    sides = f"[{json.dumps(side)}, {json.dumps(other)}].map((said) => ({{said, grouped: l.byPrompt(said)}}))"

    def arranged(**options):
        wanted = json.dumps({"metric": "s", "order": "difference", **options})
        call = f"l.arrange({json.dumps(prompts)}, {sides}, {wanted})"
        return logic(f"{call}.map((row) => [row.index, row.difference])")

    assert arranged() == [[2, -5], [0, 3], [1, 0.5]]
    assert arranged(order="gains") == [[0, 3], [1, 0.5], [2, -5]]
    assert arranged(query="three") == [[1, 0.5]]
    assert arranged(category="d", order="asked") == [[1, 0.5], [2, -5]]


def test_a_link_keeps_the_state_and_nothing_else(logic):
    defaults = {"x": "a", "chosen": [], "axes": [], "bound": None, "texts": False, "query": ""}
    state = {"x": "b&=<", "chosen": ["1", "2"], "axes": ["a.b%2E", "c"], "bound": 0.5, "texts": True, "query": "ä #"}
    usual = json.dumps(defaults)
    assert logic(f"l.fromHash('#' + l.toHash({json.dumps(state)}, {usual}), {usual})") == {"state": state, "odd": []}
    assert logic(f"l.toHash({usual}, {usual})") == ""
    wrong = "#__proto__=1&evil=2&bound=x&bound=&texts=maybe&x=%ff&chosen=1.1.3.4&%"
    found = logic(f"l.fromHash({json.dumps(wrong)}, {usual}, {{x: ['a'], chosen: ['1', '2']}})")
    assert found["state"] == {**defaults, "chosen": ["1"]}, "once, however often it is named"
    assert found["odd"] == [
        ["__proto__", "1"], ["evil", "2"], ["bound", "x"], ["bound", ""], ["texts", "maybe"], ["x", "\ufffd"],
        ["chosen", "3, 4"], ["%", ""],
    ]  # fmt: skip


def test_texts_of_the_page(logic):
    assert logic("[l.count(1, 'run'), l.count(2, 'run'), l.count(1, 'policy', 'policies')]") == [
        "1 run",
        "2 runs",
        "1 policy",
    ]
    assert logic("l.visible('a\u202e\u0007 ü')") == "a\\u202e\\u0007 ü"
    assert logic("l.wrapped('KL to the reference', 8)") == ["KL to", "the", "reference"]
    assert logic("l.wrapped('the reference', 5, true)") == ["the", "refer", "ence"]
    assert logic("[l.tail('../../a/b', 9), l.tail('../../runs/modpo/w=0.1', 9)]") == ["a/b", "…po/w=0.1"]


def test_numbers_beside_each_other_have_the_same_decimals(logic):
    assert logic("l.alike([-0.25, 0.0078, 0.2578], 2)") == ["-0.25", "0.01", "0.26"]
    assert logic("l.alike([0.0078, -0.0004, null, 0], 2)") == ["0.0078", "-0.0004", "unknown", "0.0000"]
    assert logic("l.alike([1, -0.001], 2)") == ["1.00", "0.00"], "no zero has a sign"
    assert logic("l.withInterval([0.5, 0.00071, 1.2])") == "0.500 [0.001 .. 1.200]"


def test_boxes(logic):
    heights = "[{id: 'a', at: [0.9, 0.1]}, {id: 'b', at: [0.8, null]}, {id: 'c', at: [0.1, 0.2]}]"
    assert logic(f"l.inBox({heights}, {{x: [-0.1, 0.1], y: [1, 0.5]}})") == ["a", "b"]
    assert logic(f"l.inBox({heights}, {{x: [-0.1, 1.1], y: [0, 1]}})") == ["a", "c"]
    assert logic(f"l.inBox({heights}, {{x: [0.6, 0.7], y: [0, 0.15]}})") == ["a"], "the nearest axis"


def test_policies_are_sorted_by_a_column_and_the_unknown_stand_last(logic):
    rows = "[{v: 2}, {v: null}, {v: 10}, {v: 1}]"
    assert logic(f"l.sorted({rows}, (one) => one.v).map((one) => one.v)") == [1, 2, 10, None]
    assert logic(f"l.sorted({rows}, (one) => one.v, true).map((one) => one.v)") == [10, 2, 1, None]
    assert logic(f"l.sorted({rows}, undefined).map((one) => one.v)") == [2, None, 10, 1], "as it was"


def test_which_w_names_the_method_where_there_are_several(logic):
    rows = [{"series": name, "w": w, "seed": 0} for name in ("modpo", "soup") for w in ("0.1", "0.9")]
    assert logic(f"l.named({json.dumps(rows[:1])}, {json.dumps(rows[:2])})") == "w = 0.1"
    assert logic(f"l.named({json.dumps(rows[1:])}, {json.dumps(rows)})") == "modpo w = 0.9; soup w = 0.1, 0.9"
    seeds = json.dumps([{"series": "modpo", "w": w, "seed": seed} for w in ("0.1", "0.5") for seed in (0, 1)])
    assert logic(f"l.named({seeds}.slice(0, 3), {seeds})") == "w = 0.1, 0.5 (seed 0)", "of some seeds alone"
    three = json.dumps([{"series": "modpo", "w": "0.8, 0.1, 0.1", "seed": 0}])
    assert logic(f"l.named({three}, {three})") == "w = (0.8, 0.1, 0.1)"


def test_labels_keep_off_bars_marks_and_each_other(logic):
    point = {"x": 100, "y": 100, "size": [30, 12]}
    at = f"require({json.dumps(str(LOGIC.with_name('front_labels.js')))}).place"
    frame = "marks: [], lines: [], frame: [0, 0, 200, 200]"
    [free] = logic(f"{at}([{json.dumps(point)}], {{bars: [], {frame}}})")
    assert free is not None
    assert not free["far"]
    bars = [[100, 0, 100, 200], [0, 100, 200, 100]]
    [beside] = logic(f"{at}([{json.dumps(point)}], {{bars: {json.dumps(bars)}, {frame}}})")
    assert abs(beside["x"]) > 15, "between the arms of its intervals"
    assert abs(beside["y"]) > 6
    walls = [[x, 0, x, 200] for x in range(0, 200, 5)]
    assert logic(f"{at}([{json.dumps(point)}], {{bars: {json.dumps(walls)}, {frame}}})") == [None], "no place is free"
    one, other = logic(f"{at}([{json.dumps(point)}, {json.dumps(point)}], {{bars: [], {frame}}})")
    assert abs(one["x"] - other["x"]) >= 30 or abs(one["y"] - other["y"]) >= 12


def test_series_look_as_in_the_picture(tmp_path):
    runs = [*write_front(tmp_path / "modpo", ws=(0.1, 0.9)), *write_front(tmp_path / "new", algorithm="new", ws=(0.5,))]
    reference = {"policy": {"algorithm": "reference", "seed": 0}, "beta": None, "loss_type": None, "artifacts": {}}
    samples = [("prompt 0", "answer", {"helpful": 0.0, "safe": 0.0})]
    runs.append(write_run(tmp_path / "reference", w=None, samples=samples, algorithm="evaluate", **reference))
    collection = collect(runs)
    styles = Parsed(written(runs, tmp_path / "front.html")).data("data")["styles"]
    look = {one.get_label(): one for one in front_figure(collection.policies).legends[0].legend_handles}
    assert set(look) == {"modpo", "new"}
    for name, handle in look.items():
        style = next(one for one in STYLES if one.marker == handle.get_marker())
        assert styles[name] == {"colors": [handle.get_color(), style.on_dark], "symbol": style.symbol}
    assert styles["reference"]["symbol"] == "star", "as in the picture"


def test_who_is_dominated_is_said_as_in_the_terminal(tmp_path):
    runs = write_front(tmp_path / "a", ws=(0.1, 0.9))
    samples = [(f"prompt {p}", "x", {"helpful": -9.0 + p / 9, "safe": -9.0 - p / 7, "kl": 0.1}) for p in range(6)]
    runs.append(write_run(tmp_path / "worse", w=0.5, samples=samples))
    compared = comparisons(collect(runs).points)
    data = Parsed(written(runs, tmp_path / "front.html", compared=compared)).data("data")
    first, *others = sentences(compared)
    assert data["told"] == first
    assert [one["text"] for one in data["dominated"]] == others
    ((by, point),) = [one["pair"] for one in data["dominated"]]
    assert [data["policies"][index]["w"] for index in point] == ["0.5"]
    assert data["policies"][by[0]]["w"] in ("0.1", "0.9")
    assert Parsed(written(runs, tmp_path / "front.html")).data("data")["told"] == ""
