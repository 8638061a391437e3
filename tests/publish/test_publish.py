"""algorithm=publish: the card, the study, the logs and the upload, each read by its own library."""

import importlib.util
import json
import re

import huggingface_hub
import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from alignlab.cli import main
from alignlab.config.schema import PublishConfig
from alignlab.course_correction.page import Transcript
from alignlab.errors import ConfigError
from alignlab.front.collect import collect
from alignlab.front.table import write_csv
from alignlab.jobs.publish import newest_front
from alignlab.models.cards import AdapterCard, save_card
from alignlab.publish.card import About, card, markdown
from alignlab.publish.hub import files_to_push, push
from alignlab.publish.logs import write_samples, write_verdicts
from alignlab.publish.policies import policies_of
from support.damage import one_bit
from support.fronts import write_front, write_run
from support.pages import HOSTILE

KEY = "hf_0123456789abcdefghijklmno"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A root of runs with a finished front of data that may be harmful, and a failed run."""
    runs = write_front(tmp_path / "runs" / "modpo", ws=(0.1, 0.9), prompts=2, kind="pku_saferlhf")
    for run in runs:
        data = {"kind": "pku_saferlhf", "name": "toy", "hub": "owner/rows", "path": None}
        config = {"w": 0.5, "dataset": data, "model": {"name": "tiny", "path": "owner/base"}}
        (run / "config.json").write_text(json.dumps(config))
        (run / "adapter").mkdir()
        (run / "adapter" / "adapter_config.json").write_text("{}")
    broken = tmp_path / "runs" / "modpo" / "broken"
    broken.mkdir()
    (broken / "result.json").write_text(json.dumps({"status": "failed", "error": f"key {KEY}", "algorithm": "modpo"}))
    front = tmp_path / "runs" / "front" / "tiny" / "toy" / "sweep-1"
    front.mkdir(parents=True)
    write_csv(collect([*runs, broken]), front / "front.csv")
    for name in ("front.png", "front.json"):
        (front / name).write_bytes(b"{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return tmp_path / "runs"


def publish(root, *settings):
    """Exit code and published folder of the command."""
    code = main(["algorithm=publish", f"paths.runs={root}", f"paths.cache={root / 'cache'}", *settings])
    found = list((root / "publish").rglob("published"))
    return code, found[0] if found else None


def results_of(text):
    """Every metric of a card, as the hub's own parser reads it."""
    return {one.metric_name: one for one in ModelCard(text).data.eval_results}


def without(monkeypatch, *libraries):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in libraries else real(name, *rest)
    )


def test_the_card_is_the_hubs_and_nothing_is_pushed_unasked(root, capsys, monkeypatch):
    without(monkeypatch, "optuna", "inspect_ai")
    code, folder = publish(root, "algorithm.formats=[card]", "algorithm.license=apache-2.0")
    assert code == 0
    text = (folder / "README.md").read_text()
    data = ModelCard(text).data
    assert (data.license, data.base_model, data.datasets) == ("apache-2.0", "owner/base", ["owner/rows"])
    recorded = json.loads((root / "modpo" / "w=0.1" / "result.json").read_text())["metrics"]["helpful"]
    one = results_of(text)["helpful (modpo w=0.1)"]
    assert (one.metric_value, one.metric_args["ci95"]) == (recorded["mean"], recorded["ci95"])
    assert len(results_of(text)) == 2 * 3
    said = capsys.readouterr().out
    assert "nothing is pushed; algorithm.push=OWNER/NAME would push" in said
    assert "adapters/modpo_w=0.1/adapter_config.json" in said
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "front.csv", "front.json", "front.png"]
    assert "1 runs of this front failed" in text


def test_hostile_text_in_a_card_is_text(tmp_path):
    samples = [("p", "r", {"helpful": 1.0, "safe": 0.0})]
    runs = [
        write_run(tmp_path / f"{n}", w=n / 30, samples=samples, recipe={"x": text})
        for n, text in enumerate(HOSTILE[:-1], 1)
    ]
    found = collect(runs)
    about = About(HOSTILE[0], None, "x", HOSTILE[1], None, HOSTILE[7], [], texts=False)
    text = card(found, policies_of(found), about)
    body = text.split("---\n", 2)[2]
    parser = MarkdownIt("gfm-like")
    tokens = [part for token in parser.parse(body) for part in (token, *(token.children or ()))]
    acting = [token.type for token in tokens if token.type in ("html_block", "html_inline", "link_open")]
    assert acting == []
    assert [token.attrs["src"] for token in tokens if token.type == "image"] == ["front.png"]
    assert sum(token.type == "tr_open" for token in tokens) == len(HOSTILE)  # a head, and a row a run
    assert not set("\x00\x07\x08\x1b\u202e\u2066\u2069") & set(text)
    assert len(results_of(text)) == 2 * (len(HOSTILE) - 1)


@pytest.mark.parametrize("text", ["<b>x</b>", "[x](y)", "https://example.org", "www.example.org", "a@example.org"])
def test_what_is_escaped_would_act(text):
    """The control."""
    acting = ("html_inline", "link_open")

    def seen(written):
        return [one.type for one in MarkdownIt("gfm-like").parseInline(written)[0].children if one.type in acting]

    assert seen(text)
    assert not seen(markdown(text))


@pytest.mark.parametrize(("library", "one"), [("optuna", "study"), ("inspect_ai", "logs")])
def test_without_the_extra_a_line_names_it_and_nothing_is_written(root, monkeypatch, capsys, library, one):
    """The control is the card, above, which needs neither."""
    without(monkeypatch, library)
    assert publish(root, f"algorithm.formats=[{one}]") == (2, None)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"algorithm.formats={one}: needs {library}; pip install 'alignlab[publish]'" in line


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"formats": ["study"], "push": "a/b"}, "add card to algorithm.formats"),
        ({"push": "nonsense"}, "algorithm.push=nonsense: must be a repository of the hub"),
        ({"formats": ["cards"]}, "did you mean card"),
        ({"formats": []}, "must name some of card, study, logs"),
        ({"verdicts": ["x"]}, "add logs to algorithm.formats"),
        ({"license": "Apache 2"}, "algorithm.license=Apache 2: must be the hub's name"),
    ],
)
def test_what_cannot_be_published_is_refused(settings, said):
    good = {"name": "publish", "front": None, "formats": ["card"], "verdicts": [], "texts": False}
    good |= {"license": None, "push": None}
    PublishConfig(**good)
    with pytest.raises(ConfigError, match=said):
        PublishConfig(**{**good, **settings})


def test_what_is_not_there_is_said(root, capsys, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    for setting, said in (
        ("front=elsewhere", "algorithm.front=elsewhere: must be a folder with a front.csv"),
        ("push=a/b", "algorithm.push=a/b: needs a key of the hub"),
    ):
        assert publish(root, "algorithm.formats=[card]", f"algorithm.{setting}") == (2, None)
        assert said in capsys.readouterr().err
    with pytest.raises(ConfigError, match="no front below"):
        newest_front(root / "modpo")
    assert newest_front(root).name == "sweep-1", "the control"


def test_it_is_pushed_in_one_commit_and_a_refusal_keeps_the_key(root, monkeypatch):
    files = files_to_push(root / "front", policies_of(collect([root / "modpo" / "w=0.1", root / "modpo" / "w=0.9"])))
    with pytest.raises(ConfigError, match="the hub does not take it"):
        push("me/front", files)  # the real library, offline
    calls = []

    class Api:
        def create_repo(self, repo, **settings):
            calls.append(settings)
            return f"https://hub.example/{repo}"

        def create_commit(self, repo, operations, commit_message):
            calls.append({one.path_in_repo for one in operations})

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert push("me/front", files) == "https://hub.example/me/front"
    assert calls[0]["private"] is True
    assert {"tiny/toy/sweep-1/front.png", "adapters/modpo_w=0.9/adapter_config.json"} <= calls[1]
    monkeypatch.setattr(Api, "create_repo", lambda *_, **__: (_ for _ in ()).throw(OSError(f"no: {KEY}")))
    with pytest.raises(ConfigError, match=r"no: \*\*\*"):
        push("me/front", files)


def test_a_damaged_adapter_is_not_published(root, capsys):
    adapter = root / "modpo" / "w=0.1" / "adapter"
    (adapter / "adapter_model.safetensors").write_bytes(bytes(64))
    save_card(adapter, AdapterCard("better", 1.0, "base", None, "toy", {"better": 0.1, "safer": 0.9}))
    one_bit(adapter / "adapter_model.safetensors")
    code, _ = publish(root, "algorithm.formats=[card]")
    assert code == 2
    assert "adapter_model.safetensors was changed or damaged since it was saved" in capsys.readouterr().err


def test_the_study_is_optunas_and_its_dashboard_shows_it(root):
    optuna = pytest.importorskip("optuna", reason="optuna is in the extra `publish`, which make everything installs")
    code, folder = publish(root, "algorithm.formats=[study]")
    assert code == 0
    url = f"sqlite:///{folder / 'study.db'}"
    study = optuna.load_study(study_name=None, storage=url)
    done = [one for one in study.trials if one.state.name == "COMPLETE"]
    assert study.metric_names == ["helpful", "safe"]
    assert [one.params for one in done] == [{"w_better": 0.1, "w_safer": 0.9}, {"w_better": 0.9, "w_safer": 0.1}]
    recorded = json.loads((root / "modpo" / "w=0.9" / "result.json").read_text())["metrics"]
    assert done[1].values == [recorded[name]["mean"] for name in ("helpful", "safe")]
    assert done[1].user_attrs["kl"] == recorded["kl"]["mean"]
    assert done[1].user_attrs["ci95"]["helpful"] == recorded["helpful"]["ci95"]
    (failed,) = [one for one in study.trials if one.state.name == "FAIL"]
    assert failed.user_attrs["error"] == "key ***"
    assert len(study.best_trials) == 2, "neither dominates the other"
    shown = dashboard(url, study)
    assert [one["values"] for one in shown["trials"][:2]] == [one.values for one in done]


def dashboard(url, study):
    """What optuna-dashboard, on loopback, tells its page of a study."""
    import threading
    import urllib.request
    from wsgiref.simple_server import WSGIRequestHandler, make_server

    served = pytest.importorskip("optuna_dashboard").wsgi(url)
    quiet = type("Quiet", (WSGIRequestHandler,), {"log_message": lambda *_: None})
    with make_server("127.0.0.1", 0, served, handler_class=quiet) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/api/studies/{study._study_id}?after=0"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(address) as answer:
            found = json.load(answer)
        server.shutdown()
    return found


def test_the_logs_are_inspects_and_hide_texts_unless_asked(root):
    log = pytest.importorskip(
        "inspect_ai.log", reason="inspect-ai is in the extra `publish`, which make everything installs"
    )
    code, folder = publish(root, "algorithm.formats=[logs]")
    assert code == 0
    infos = log.list_eval_logs(str(folder / "logs"))
    assert len(infos) == 2
    found = {one.eval.task: one for one in (log.read_eval_log(info) for info in infos)}
    one = found["samples of modpo w=0.1"]
    recorded = json.loads((root / "modpo" / "w=0.1" / "result.json").read_text())["metrics"]["helpful"]
    (score,) = [score for score in one.results.scores if score.name == "helpful"]
    assert score.metrics["mean"].value == recorded["mean"]
    assert (one.status, one.eval.dataset.samples, one.eval.config.epochs, len(one.samples)) == ("success", 2, 2, 4)
    scores = {(sample.id, sample.epoch): sample.scores["helpful"].value for sample in one.samples}
    assert list(scores) == [(1, 1), (2, 1), (1, 2), (2, 2)]
    assert scores[1, 2] == 1.2
    assert "answer 0" not in one.model_dump_json()
    assert re.fullmatch(r"\[hidden: \d+ characters\]", one.samples[0].output.completion)
    (policy,) = policies_of(collect([root / "modpo" / "w=0.1"]))
    shown = log.read_eval_log(str(write_samples(root, policy, texts=True)))
    said = [sample.output.completion for sample in shown.samples]
    assert "answer 0 of w=0.1 to 0" in said, "the control"


def test_verdicts_are_logs_and_an_unscored_one_is_no_no(tmp_path):
    log = pytest.importorskip(
        "inspect_ai.log", reason="inspect-ai is in the extra `publish`, which make everything installs"
    )
    (tmp_path / "result.json").write_text("{}")
    verdicts = [True, None, False, True]
    said = [Transcript(str(n), 8, f"request {n}", "Sure", " no", one, "why") for n, one in enumerate(verdicts)]
    path = write_verdicts(tmp_path / "logs" / "v.eval", tmp_path, said, model="tiny", texts=False)
    found = log.read_eval_log(str(path))
    (score,) = found.results.scores
    assert (score.scored_samples, score.unscored_samples) == (3, 1)
    assert score.metrics["mean"].value == pytest.approx(2 / 3)
    values = [sample.scores["corrected"].value for sample in found.samples]
    assert [values[0], values[2], values[3]] == [1, 0, 1]
    assert values[1] != values[1], "NaN is inspect's unscored"
    assert "request" not in found.model_dump_json(exclude={"eval"})
