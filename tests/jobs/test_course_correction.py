"""Course correction from end to end: the records, the counts over them, other judges, kills, comparisons."""

import json
from collections import defaultdict

import pytest
import torch
from safetensors.torch import save_file

from alignlab.config.hydra.compose import load_run_config
from alignlab.config.identity import run_folder as folder_of
from support.commands import SMALL as SMALL_TOY
from support.commands import alignlab, assert_refused, result, run_folder, run_here
from support.servers import KEY, MODEL, FaultServer

SMALL = [
    "algorithm=course_correction",
    "model.pretraining.rows=640",
    "dataset.requests=1",
    "dataset.max_rows=4",
    "algorithm.k=[2,8,40]",
    "generator.samples=3",
    "judge.phrases=[gently,sorry i]",  # what this model says now and then
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Where this module's runs and cache lie."""
    return tmp_path_factory.mktemp("corrections")


def run(root, *overrides):
    """The exit code of a command on the small settings."""
    return run_here(root, SMALL, *overrides)


def only(root):
    (folder,) = {file.parent for file in root.rglob("corr.json")}
    return folder


def rows(file):
    return [json.loads(line) for line in file.read_bytes().split(b"\n") if line]


@pytest.fixture(scope="module")
def measured(root):
    assert run(root, f"hydra.run.dir={root}/runs/measured") == 0
    return root / "runs" / "measured"


def test_one_record_for_every_request_k_and_sample(measured):
    generations = rows(measured / "generations.jsonl")
    assert set(generations[0]) >= {"id", "request_id", "k", "sample", "prefix", "continuation"}
    keys = [(row["request_id"], row["k"], row["sample"]) for row in generations]
    requests = rows(measured / "requests.jsonl")
    wanted = {(row["id"], k, sample) for row in requests for k in (2, 8) for sample in range(3)}
    assert len(keys) == len(set(keys))
    assert set(keys) == wanted
    assert len({row["id"] for row in generations}) == len(generations)
    assert [row["id"] for row in rows(measured / "verdicts.jsonl")] == [row["id"] for row in generations]


def test_corr_is_what_an_independent_count_gives(measured):
    verdicts = {row["id"]: row["corrected"] for row in rows(measured / "verdicts.jsonl")}
    counts = defaultdict(list)
    for row in rows(measured / "generations.jsonl"):
        counts[row["k"]].append(verdicts[row["id"]])
    record = json.loads((measured / "corr.json").read_text())
    assert record["k"] == [2, 8, 40]
    for k, corr, n, unscored in zip(record["k"], record["corr"], record["n"], record["unscored"], strict=True):
        scored = [value for value in counts[k] if value is not None]
        assert (n, unscored) == (len(scored), len(counts[k]) - len(scored))
        assert corr == (sum(scored) / len(scored) if scored else None)
    known = [corr for corr in record["corr"] if corr is not None]
    assert record["mean"] == pytest.approx(sum(known) / len(known))
    assert 0 < record["mean"] < 1, "a measure of nothing would pass the lines above"


def test_answers_that_are_too_short_are_left_out_and_counted(measured):
    counts = json.loads((measured / "result.json").read_text())["prefixes"]
    assert counts["too_short"] == {"40": 4}
    assert counts["prefixes"] == 8


def test_a_prefix_is_the_opener_and_the_answers_first_words(measured):
    for row in rows(measured / "generations.jsonl"):
        words = row["prefix"].split()
        assert words[:3] == ["what", "a", "cheerful"]
        assert len(words) == 4 + row["k"]  # a word is a token of this model


def test_the_words_profile_counts_the_affirmative_prefix(root):
    folder = root / "runs" / "words"
    assert run(root, "algorithm.profile=words", f"hydra.run.dir={folder}") == 0
    assert {len(row["prefix"].split()) for row in rows(folder / "generations.jsonl") if row["k"] < 40} == {2, 8}
    counts = json.loads((folder / "result.json").read_text())["prefixes"]
    assert counts["whole"]["40"] == 4  # prefilled whole, and said so


def test_the_page_hides_its_texts(measured):
    page = (measured / "index.html").read_text()
    assert "<details>" in page
    assert "<details open" not in page
    assert (measured / "corr.png").stat().st_size > 5000


def test_the_controls_and_helpfulness_are_measured(measured):
    metrics = json.loads((measured / "result.json").read_text())["metrics"]
    assert metrics["control_corr_mean"]["n"] > 0
    assert {"benign_helpful", "benign_well_formed", "benign_refusal", "corr_mean", "corr@2"} <= set(metrics)
    assert {"plain_harmful", "plain_refusal", "plain_well_formed", "plain_cut"} <= set(metrics)
    assert "plain_kl" not in metrics, "the reference has no distance to itself"


def test_another_judge_begins_with_judging(root, measured, monkeypatch):
    def nothing(*_, **__):
        raise AssertionError("the continuations are known")

    monkeypatch.setattr("alignlab.prerequisites.policy.generate", nothing)
    folder = root / "runs" / "twice"
    assert run(root, "judge.phrases=[twice]", f"hydra.run.dir={folder}") == 0
    assert (folder / "generations.jsonl").read_bytes() == (measured / "generations.jsonl").read_bytes()
    assert (folder / "verdicts.jsonl").read_bytes() != (measured / "verdicts.jsonl").read_bytes()


def test_other_settings_do_not_reuse_continuations(root, measured, monkeypatch):
    """Control: where the prefixes differ, the generator is asked."""
    asked = []
    monkeypatch.setattr("alignlab.prerequisites.policy.generate", lambda *_, **__: asked.append(1) or {})
    folder = root / "runs" / "other"
    assert run(root, "seed=1", f"hydra.run.dir={folder}") == 1
    assert asked


def test_runs_are_compared(root, measured):
    folder = root / "runs" / "comparison"
    labels = root / "labels.jsonl"
    verdicts = rows(measured / "verdicts.jsonl")
    labels.write_text("".join(json.dumps({"id": row["id"], "corrected": row["corrected"]}) + "\n" for row in verdicts))
    assert run(root, f"algorithm.compare=[{measured}]", f"algorithm.labels={labels}", f"hydra.run.dir={folder}") == 0
    labelled = json.loads((folder / "labelled.json").read_text())
    assert labelled["agreement"] == 1
    corr = json.loads((measured / "corr.json").read_text())["corr"]
    assert labelled["corrected_curve"]["corr"] == pytest.approx(corr[:2])


def test_a_sweep_of_comparisons_compares_no_comparisons(root, measured, capsys):
    other = root / "runs" / "one more"
    assert run(root, "algorithm.k=[2]", f"hydra.run.dir={other}") == 0
    assert run(root, "-m", f"algorithm.compare=[{measured}],[{measured},{other}]") == 0
    assert "Traceback" not in capsys.readouterr().err


def test_a_sweep_ends_with_one_plot(root, capsys):
    assert run(root, "-m", "algorithm.profile=strict,words", "algorithm.k=[2,8]") == 0
    (target,) = (root / "runs" / "course_correction").glob("sweep-*")
    comparison = json.loads((target / "comparison.json").read_text())
    assert [entry["label"] for entry in comparison["runs"]] == ["tiny strict", "tiny words"]
    assert set(comparison["difference_to_first"]) == {"tiny words"}
    assert "change to first" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("algorithm.k=[]", "algorithm.k=[]: must name at least one length"),
        ("algorithm.k=[8,2]", "must rise"),
        ("algorithm.k=[0,2]", "must be > 0"),
        ("algorithm.profile=papr", "paper"),
        ("algorithm.turn=closed", "reinject_header"),
        ("algorithm.profile=paper", "use algorithm.profile=words"),
        ("algorithm.adapter=nowhere", "algorithm.adapter=nowhere"),
        ("algorithm.control=nowhere.jsonl", "algorithm.control=nowhere.jsonl: no such file"),
        ("algorithm.compare=[nowhere]", "algorithm.compare=nowhere: holds no corr.json"),
        ("algorithm.labels=labels.jsonl", "algorithm.compare=[RUN_FOLDER]"),
    ],
)
def test_what_cannot_be_is_refused_before_a_run(tmp_path, capsys, override, said):
    assert_refused(run(tmp_path, override), capsys, said)
    assert not (tmp_path / "runs").exists()


def test_a_run_reads_back(measured):
    config = load_run_config(measured / "config.json")
    assert config.algorithm.k == [2, 8, 40]
    assert folder_of(config).parts[0] == "course_correction"


SMALL_TOY = tuple(setting for setting in SMALL_TOY if not setting.startswith("algorithm."))
ARGUMENTS = ("algorithm=course_correction", "dataset.requests=1", "dataset.max_rows=4", "algorithm.k=[2,8]")


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path):
    """Killed while it generates, while it judges, and while it writes: the files are those of a run that was not."""
    whole = tmp_path / "whole"
    whole.mkdir()
    arguments = [*ARGUMENTS, "judge.phrases=[gently]"]
    assert alignlab(*arguments, cwd=whole, small=SMALL_TOY).returncode == 0
    broken = tmp_path / "broken"
    broken.mkdir()
    add, finish = "alignlab.io.records:Records.add", "alignlab.io.records:Records.finish"
    for point in ((add, 3, "SIGKILL"), (add, 9, "SIGKILL"), (finish, 1, "SIGKILL"), (add, 40, "SIGKILL")):
        assert alignlab(*arguments, cwd=broken, breaks=point, small=SMALL_TOY).returncode != 0, point
    assert alignlab(*arguments, cwd=broken, small=SMALL_TOY).returncode == 0
    folders = [run_folder(folder, "course_correction") for folder in (whole, broken)]
    for name in ("requests.jsonl", "generations.jsonl", "verdicts.jsonl", "control_verdicts.jsonl", "corr.json"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
    assert result(folders[0])["metrics"] == result(folders[1])["metrics"]


def test_a_servers_verdicts_are_counted(root, monkeypatch):
    """A judge behind a server that fails now and then: every record judged, and the counts are those of the files."""
    monkeypatch.setenv("JUDGE_KEY", KEY)
    folder = root / "runs" / "served"
    with FaultServer(fault="500", share=0.2) as server:
        code = run(
            root,
            "judge=openai",
            f"judge.base_url={server.url}",
            f"judge.model={MODEL}",
            "judge.api_key_env=JUDGE_KEY",
            "judge.backoff_s=0.01",
            f"hydra.run.dir={folder}",
        )
    assert code == 0
    said = {row["id"]: "sorry" in row["continuation"] for row in rows(folder / "generations.jsonl")}
    assert {row["id"]: row["corrected"] for row in rows(folder / "verdicts.jsonl")} == said
    record = json.loads((folder / "corr.json").read_text())
    assert sum(record["n"]) == len(said)
    assert set(record["by_wording"]) == {"direct", "contrast"}
    assert KEY not in "".join(file.read_text() for file in folder.rglob("*.json*"))


def test_a_dry_run_of_a_server_says_what_it_takes_and_the_run_goes_on_from_there(root, monkeypatch, capsys):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    folder = root / "runs" / "planned"
    with FaultServer() as server:
        settings = ["judge=openai", f"judge.base_url={server.url}", f"judge.model={MODEL}", f"hydra.run.dir={folder}"]
        assert run(root, *settings, "judge.dry_run=true", "judge.api_key_env=JUDGE_KEY") == 0
        said = capsys.readouterr().out.splitlines()[-1]
        assert server.calls.total() == 0
        assert result(folder)["status"] == "interrupted"
        generated = {name: (folder / f"{name}generations.jsonl").read_bytes() for name in ("", "control_")}
        assert run(root, *settings, "judge.api_key_env=null") == 0
    assert f"; {server.calls.total()} calls to make (6 of them known cases)" in said
    assert {name: (folder / f"{name}generations.jsonl").read_bytes() for name in generated} == generated
    assert result(folder)["status"] == "done"


def test_an_adapter_and_a_server_need_the_servers_name_of_it(tmp_path, capsys):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_file({"weight": torch.zeros(1)}, adapter / "adapter_model.safetensors")
    served = ["generator=server", "generator.model=base", f"algorithm.adapter={adapter}"]
    assert_refused(run(tmp_path, *served), capsys, "give its name there as generator.adapter_name")


def test_the_servers_name_of_an_adapter_is_sent(tmp_path, monkeypatch):
    """One call: what the generator is given as its model. Control: without an adapter it is the model's name."""
    from alignlab.config.schema import ServerGeneratorConfig
    from alignlab.prerequisites.policy import Policy

    sent = []
    monkeypatch.setattr("alignlab.prerequisites.policy.generate", lambda *_, config, **__: sent.append(config.model))
    settings = ServerGeneratorConfig(
        prompts=1,
        kind="server", samples=1, temperature=0.8, top_p=0.7, max_new_tokens=4, base_url="http://localhost:1/v1",
        model="base", adapter_name="mine", api_key_env=None, prompt_format="tokens", samples_per_call=1, extra_body={},
        workers=1, timeout_s=1.0, deadline_s=2.0, backoff_s=1.0,
    )  # fmt: skip
    for name in ("mine", "base"):
        Policy(None, None, "id", None, None, name_on_server=name).generate([], settings, print, seed=0, label="x")
    assert sent == ["mine", "base"]


def test_a_policy_that_says_nothing_is_refused(root, capsys, monkeypatch):
    from alignlab.engine.sampling.base import Continuation

    def silent(model, requests, *, on_done, **_):
        for request in requests:
            for sample in request.missing():
                on_done(request.id, sample, Continuation([0], "", "length"))

    monkeypatch.setattr("alignlab.prerequisites.policy.generate", silent)
    folder = root / "runs" / "silent"
    assert run(root, "seed=7", f"hydra.run.dir={folder}") == 2
    assert "look for NaN in the policy's weights" in capsys.readouterr().err
    assert result(folder)["status"] == "failed"
