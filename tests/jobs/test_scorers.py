"""A policy's own responses to a file's held-out prompts, scored: the sweep, its front, and the price of a scorer."""

import contextlib
import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest

from alignlab.cli import main
from alignlab.config.schema import BeaverConfig, JudgedConfig, LengthConfig
from alignlab.config.schema.defaults import complete_scorers
from alignlab.data.records import RankedRow
from alignlab.data.worlds import toy
from alignlab.errors import ConfigError
from alignlab.evaluation.scored import response_limit
from support.beaver import checkpoint, plain_score, small_llama
from support.pages import Parsed

SMALL = [
    "model=hf",
    "model.prompt_template='user: {raw_prompt} assistant: '",
    "dataset=pku_saferlhf",
    "trainer.max_steps=2",
    "trainer.per_device_train_batch_size=8",
    "trainer.logging_steps=1",
    "trainer.max_length=64",
    "generator.samples=3",
    "generator.prompts=4",
    "generator.max_new_tokens=8",
]
SCORERS = ["scorers.better.kind=length", "scorers.better.unit=words", "scorers.safer.kind=python"]


@pytest.fixture(scope="module")
def root(base, tmp_path_factory):
    """A base model's folder, a file of preferences, and where this module's runs and cache lie."""
    root = tmp_path_factory.mktemp("scorers")
    (root / "model").symlink_to(base.path)
    row = {"response_0": "mind the red first", "response_1": "what a lovely red thing", "safer_response_id": 0}
    row["response_0_harm_category"] = {"Violence": True, "Privacy": False}
    quiet = {**row, "response_0_harm_category": {"Violence": False, "Privacy": False}}
    prompts = toy.all_prompts()[:80]
    given = [{"prompt": prompt, **(quiet, row)[index % 2]} for index, prompt in enumerate(prompts)]
    rows = [json.dumps({**one, "better_response_id": 1}) for one in given]
    (root / "rows.jsonl").write_text("\n".join(rows) + "\n")
    return root


def command(root, *given, runs="runs"):
    """Exit code of a command on the small model and the file."""
    here = [f"model.path={root}/model", f"dataset.path={root}/rows.jsonl"]
    with contextlib.chdir(root):  # run folders are relative, as by default
        return main([*given, *SMALL, *here, f"paths.runs={runs}", f"paths.cache={root}/cache"])


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def evaluations(root):
    """Weight of the first objective (None: the reference) -> (folder, result)."""
    found = {}
    for file in root.glob("runs/evaluate/**/result.json"):
        result = json.loads(file.read_text())
        found[(result["weights"] or {}).get("better")] = (file.parent, result)
    return found


@pytest.fixture(scope="module")
def swept(root):
    """What a sweep over w with scorers leaves: evaluations, and the rows of its front."""
    assert command(root, "-m", "algorithm=modpo", "w=0.3,0.7", *SCORERS) == 0
    front = max(root.glob("runs/front/**/front.csv"), key=lambda path: path.stat().st_mtime_ns)
    return evaluations(root), front.read_text()


@pytest.fixture(scope="module")
def sweep(swept):
    """The evaluations of that sweep."""
    return swept[0]


def test_a_sweep_ends_in_the_front_of_scored_samples(sweep, swept):
    assert set(sweep) == {None, 0.3, 0.7}
    with io.StringIO(swept[1]) as stream:
        rows = {row["weight_better"]: row for row in csv.DictReader(stream)}
    assert set(rows) == {"", "0.3", "0.7"}
    assert rows[""]["algorithm"] == "reference"
    assert {rows["0.3"]["algorithm"], rows["0.7"]["algorithm"]} == {"modpo"}
    for weight, (folder, result) in sweep.items():
        said = lines_of(folder / "generations.jsonl")
        by_prompt = {}
        for row in said:
            by_prompt.setdefault(row["group"], []).append(-len(row["response"].split()))
        assert len(by_prompt) == 4
        expected = np.mean([np.mean(scores) for scores in by_prompt.values()])
        assert float(rows["" if weight is None else str(weight)]["better_reward_mean"]) == pytest.approx(expected)
        assert result["axes"] == {"better": "better_reward", "safer": "safer_reward"}
        assert result["metrics"]["tokens"]["mean"] == pytest.approx(np.mean([len(row["tokens"]) for row in said]))
        assert result["metrics"]["kl"]["mean"] == 0 if weight is None else result["metrics"]["kl"]["mean"] > 0


def test_the_front_of_all_runs_so_far_is_that_of_what_their_policies_say(root):
    assert command(root, "-m", "algorithm=modpo", "w=0.3,0.7", *SCORERS, runs="so_far") == 0
    assert command(root, "algorithm=front", runs="so_far") == 0
    (front,) = (file for file in root.glob("so_far/front/**/front.csv") if "sweep" not in file.parent.name)
    with front.open() as stream:
        rows = list(csv.DictReader(stream))
    assert sorted(row["w"] for row in rows) == ["", "0.3", "0.7"]
    assert all("/evaluate/" in row["folder"] and row["better_reward_mean"] for row in rows)
    page = Parsed(front.with_name("front.html")).data("data")
    assert [policy["series"] for policy in page["policies"]].count("reference") == 1
    assert page["reference"] is None, "the mark of a reference would stand there twice"


def test_gains_are_paired_with_the_reference_by_prompt(sweep):
    def means(folder):
        held = {}
        for row in lines_of(folder / "scores.jsonl"):
            held.setdefault(row["group"], []).append(row["better_reward"])
        return {group: np.mean(scores) for group, scores in held.items()}

    folder, result = sweep[0.7]
    own, other = means(folder), means(sweep[None][0])
    assert own.keys() == other.keys()
    expected = np.mean([own[group] - other[group] for group in own])
    assert result["metrics"]["better_gain"]["mean"] == pytest.approx(expected)
    assert "better_gain" not in sweep[None][1]["metrics"]


def test_scores_by_category_are_those_of_its_prompts(root, sweep):
    harmful = {row["prompt"] for row in lines_of(root / "rows.jsonl") if row["response_0_harm_category"]["Violence"]}
    folder, result = sweep[0.7]
    said = lines_of(folder / "generations.jsonl")
    assert {row["prompt"] in harmful for row in said} == {True, False}, "control: some of the prompts have none"
    assert all(row.get("categories") == (["Violence"] if row["prompt"] in harmful else None) for row in said)
    scores = [-len(row["response"].split()) for row in said if row["prompt"] in harmful]
    found = result["by_category"]
    assert found.keys() == {"Violence"}
    assert found["Violence"]["better_reward"]["mean"] == pytest.approx(np.mean(scores))
    assert found["Violence"]["better_reward"]["n"] == len(scores)


def test_an_evaluation_of_the_adapters_gives_the_same_numbers(root, sweep, tmp_path):
    adapters = sorted(str(path) for path in root.glob("runs/modpo/**/adapter"))
    moved = [tmp_path / name for name in ("one", "two")]
    for adapter, target in zip(adapters, moved, strict=True):
        target.symlink_to(adapter)
    before = {weight: result["metrics"] for weight, (_, result) in sweep.items()}
    joined = ",".join(map(str, moved))
    assert command(root, "-m", "algorithm=evaluate", f"algorithm.adapter={joined}", *SCORERS, runs="anew") == 0
    again = [json.loads(file.read_text()) for file in root.glob("anew/evaluate/**/result.json")]
    assert len(again) == 3
    for result in again:
        assert result["metrics"] == before[(result["weights"] or {}).get("better")]
    (front,) = root.glob("anew/front/**/front.csv")
    assert [row["status"] for row in csv.DictReader(front.open())] == ["done"] * 3
    assert command(root, "-m", "algorithm=evaluate", f"algorithm.adapter={joined}", *SCORERS) == 0
    assert len(evaluations(root)) == len([*root.glob("runs/evaluate/**/result.json")]) == 3, "wherever it lies"


def test_another_scorer_samples_nothing_and_trains_nothing(root, sweep, monkeypatch):
    import alignlab.evaluation.scored as scored
    import alignlab.training.launch as launch

    def never(*_, **__):
        raise AssertionError("sampled or trained again")

    monkeypatch.setattr(scored, "_draw", never)
    monkeypatch.setattr(launch, "train_on_processes", never)
    before = {weight: (folder / "generations.jsonl").read_bytes() for weight, (folder, _) in sweep.items()}
    other = [*SCORERS[:2], "scorers.safer.kind=python", "scorers.safer.function=distinct"]
    assert command(root, "-m", "algorithm=modpo", "w=0.3,0.7", *other) == 0
    for weight, (folder, result) in evaluations(root).items():
        if folder in [held for held, _ in sweep.values()]:
            assert (folder / "generations.jsonl").read_bytes() == before[weight]
            assert result["scorers"]["safer"]["settings"]["function"] == "distinct"


def test_files_beside_a_finished_sweep_are_measured_and_nothing_is_trained_or_sampled_again(root, sweep, monkeypatch):
    """Over-refusal is counted again from the records, the loss is transformers' own; changes are paired."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import alignlab.evaluation.quality as quality
    import alignlab.training.launch as launch

    monkeypatch.setattr(launch, "train_on_processes", None)  # fails where it is called
    monkeypatch.setattr(quality, "refuses", lambda prompt, response, *, is_toy: float(len(response) % 2))
    asked = toy.all_prompts()[80:84]
    (root / "benign.csv").write_text(
        "prompt,type,label\n"
        + "".join(f"{prompt},{'ab'[i % 2]},safe\n" for i, prompt in enumerate(asked))
        + "no,a,unsafe\n"
    )
    texts = [" ".join(toy.all_prompts()[start : start + 3]) for start in (0, 5, 9)]
    (root / "own.txt").write_text("\n\n".join(texts))
    files = [f"dataset.benign={root}/benign.csv", f"dataset.text={root}/own.txt"]
    before = {weight: (folder / "generations.jsonl").stat().st_mtime_ns for weight, (folder, _) in sweep.items()}
    assert command(root, "-m", "algorithm=modpo", "w=0.3,0.7", *SCORERS, *files) == 0
    found = {weight: one for weight, one in evaluations(root).items() if weight in sweep}

    def refused(folder):
        held = {}
        for row in lines_of(folder / "benign_generations.jsonl"):
            held.setdefault(row["prompt"], []).append(len(row["response"]) % 2)
        return {prompt: np.mean(values) for prompt, values in held.items()}

    base = refused(found[None][0])
    assert set(base) == set(asked), "the unsafe one is not asked"
    for weight, (folder, result) in found.items():
        metrics, own = result["metrics"], refused(folder)
        assert (folder / "generations.jsonl").stat().st_mtime_ns == before[weight]
        assert metrics["over_refusal"]["mean"] == pytest.approx(np.mean([*own.values()]))
        assert (metrics["over_refusal"]["n"], metrics["over_refusal"]["groups"]) == (12, 4)
        assert set(result["over_refusal_by_type"]) == {"a", "b"}
        assert metrics["text_loss"]["groups"] == 3
        if weight is not None:
            change = np.mean([own[prompt] - base[prompt] for prompt in own])
            assert metrics["over_refusal_change"]["mean"] == pytest.approx(change)
            gone = metrics["text_loss"]["mean"] - found[None][1]["metrics"]["text_loss"]["mean"]
            assert metrics["text_loss_change"]["mean"] == pytest.approx(gone, abs=1e-9)
            assert gone != 0
            assert {"tokens_change", "repetition_change"} <= set(metrics)
    model, tokenizer = (kind.from_pretrained(root / "model") for kind in (AutoModelForCausalLM, AutoTokenizer))
    nats = count = 0
    for text in texts:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        nats, count = nats + model(ids, labels=ids).loss.item() * (ids.shape[1] - 1), count + ids.shape[1] - 1
    assert found[None][1]["metrics"]["text_loss"]["mean"] == pytest.approx(nats / count, rel=1e-5)
    with max(root.glob("runs/front/**/front.csv"), key=lambda file: file.stat().st_mtime).open() as stream:
        assert {"over_refusal_mean", "repetition_groups", "text_loss_change_low"} <= set(next(csv.reader(stream)))
    shown = Parsed(max(root.glob("runs/front/**/front.html"), key=lambda file: file.stat().st_mtime))
    assert "loss on held-out text (nats/token)" in json.dumps(shown.data("data")["metrics"])
    assert command(root, "-m", "algorithm=modpo", "w=0.3,0.7", *SCORERS, f"dataset.benign={root}/none.csv") == 2


def test_a_killed_sampling_goes_on(root, sweep, monkeypatch):
    """The samples that were drawn before the kill are kept; the file is that of an undisturbed run."""
    import alignlab.evaluation.scored as scored
    from alignlab.io.records import Records

    folder, _ = sweep[None]
    undisturbed = (folder / "generations.jsonl").read_bytes()
    real, added = Records.add, []

    def killed(self, record):
        if len(added) == 5:
            raise KeyboardInterrupt
        added.append(record["id"])
        real(self, record)

    out = f"hydra.run.dir={root}/again"
    monkeypatch.setattr(Records, "add", killed)
    assert command(root, "algorithm=evaluate", *SCORERS, out) == 130
    monkeypatch.setattr(Records, "add", real)
    drawn, draw = [], scored._draw

    def counted(policy, requests, *rest):
        drawn.extend(number for request in requests for number in request.missing())
        return draw(policy, requests, *rest)

    monkeypatch.setattr(scored, "_draw", counted)
    assert command(root, "algorithm=evaluate", *SCORERS, out) == 0
    assert len(drawn) == 12 - 5
    assert (root / "again" / "generations.jsonl").read_bytes() == undisturbed


def test_a_killed_evaluations_kl_is_worked_out_again(root, sweep):
    """Nobody has hashed its scores.jsonl yet, so a changed number would go into the result."""
    folder, _ = sweep[0.3]
    file, record = folder / "scores.jsonl", folder / "result.json"
    rows, kl = lines_of(file), json.loads(record.read_text())["metrics"]["kl"]
    assert any(row["kl"] for row in rows), "control"
    file.write_text("".join(json.dumps({**row, "kl": 7.0, "stale_reward": 1.0}) + "\n" for row in rows))
    record.unlink()
    assert command(root, "-m", "algorithm=modpo", "w=0.3,0.7", *SCORERS) == 0
    assert json.loads(record.read_text())["metrics"]["kl"] == kl
    assert [row["kl"] for row in lines_of(file)] == [row["kl"] for row in rows]
    assert not any("stale_reward" in row for row in lines_of(file))


def test_the_length_limit_comes_from_the_data(base):
    row = RankedRow("please outline the blue basket", ("mind the red first", " ".join(["red"] * 40)), {})
    short = [replace(row, responses=("red", "mind the red"))] * 1
    assert response_limit(short, base.encoder) == 8
    assert response_limit([row], base.encoder) == 40  # 95 % between 5 and 41 tokens, in eights
    long = replace(row, responses=(" ".join(["red"] * 900), " ".join(["mind"] * 900)))
    assert response_limit([long], base.encoder) == 512
    with pytest.raises(ConfigError, match=r"^generator\.max_new_tokens=0: the data holds no responses"):
        response_limit([replace(row, responses=())], base.encoder)


def test_scorers_are_typed_by_their_kind():
    found = complete_scorers(
        {
            "a": {"kind": "length", "scale": 2.0},
            "b": {"kind": "beaver", "path": "owner/cost"},
            "c": {"kind": "guard", "path": "owner/guard"},
            "d": {"kind": "judge", "judge": "openai", "model": "m", "workers": 2},
        }
    )
    assert isinstance(found["a"], LengthConfig)
    assert isinstance(found["b"], BeaverConfig)
    assert isinstance(found["c"], JudgedConfig)
    assert found["c"].settings.ask == "conversation"
    assert found["d"].settings.workers == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kind": "lenght"}, "scorers.safer.kind=lenght: did you mean length?"),
        ({"scale": 2}, "scorers.safer.kind=None: choose one of"),
        ({"kind": "length", "scale": 0}, "scorers.safer.scale=0.0: must be a finite number > 0"),
        ({"kind": "guard"}, "scorers.safer.path=null: must name a folder"),
        ({"kind": "guard", "path": "x", "threshold": 2}, "scorers.safer.threshold=2.0: must be between 0 and 1"),
        ({"kind": "judge", "judge": "guardd"}, "scorers.safer.judge=guardd: did you mean guard?"),
        ({"kind": "judge", "judge": "rules", "model": "m"}, "scorers.safer.model=m"),
    ],
)
def test_a_wrong_scorer_is_refused_in_one_line(given, said):
    with pytest.raises(ConfigError) as error:
        complete_scorers({"safer": given})
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


def test_the_papers_axes_equal_a_plain_recomputation(root):
    """Reward and minus cost by scorers=beaver, against a forward of each generation alone and means by hand."""
    llama = small_llama()
    for kind in ("reward", "cost"):
        checkpoint(llama, root / f"beaver-{kind}", score_type=kind)
    given = ["scorers=beaver", f"scorers.better.path={root}/beaver-reward", f"scorers.safer.path={root}/beaver-cost"]
    given += ["scorers.better.dtype=float32", "scorers.safer.dtype=float32"]
    assert command(root, "-m", "algorithm=modpo", "w=0.3,0.7", *given, runs="papers") == 0
    (file,) = root.glob("papers/front/**/front.csv")
    endings = set()
    with file.open() as stream:
        for row in csv.DictReader(stream):
            sums = {}
            for said in lines_of(file.parent / row["folder"] / "generations.jsonl"):
                texts, eos = (said["prompt"], said["response"]), said["finish"] == "stop"
                endings.add(eos)
                scores = [plain_score(llama, *texts, eos=eos), plain_score(llama, *texts, cost=True, eos=eos)]
                sums.setdefault(said["group"], []).append(scores)
            expected = np.mean([np.mean(scores, axis=0) for scores in sums.values()], axis=0)
            found = [float(row[f"{name}_reward_mean"]) for name in ("better", "safer")]
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert False in endings, "a response that was cut at the limit has no EOS"


def test_a_scorer_of_no_objective(root, capsys):
    assert command(root, "algorithm=evaluate", "scorers.saver.kind=length") == 2
    assert "scorers.saver: no such objective; did you mean safer?" in capsys.readouterr().err


def test_a_scorer_that_scores_nothing(root, capsys, monkeypatch):
    import torch

    from alignlab.rewards.length import LengthReward

    monkeypatch.setattr(LengthReward, "score", lambda self, prompts, responses: torch.full((len(prompts),), torch.nan))
    nothing = ["scorers.better.kind=length", f"hydra.run.dir={root}/nothing"]
    assert command(root, "algorithm=evaluate", *nothing) == 2
    assert "scorers.better: gave no score to any of 12 responses" in capsys.readouterr().err


def test_a_preview_reads_the_references_own_evaluation(root, sweep):
    few = ["algorithm.min_ess=1", "algorithm.points=3"]
    before = (sweep[None][0] / "generations.jsonl").stat().st_mtime_ns
    assert command(root, "algorithm=preview", *SCORERS, *few) == 0
    assert (sweep[None][0] / "generations.jsonl").stat().st_mtime_ns == before, "nothing is sampled again"
    (file,) = root.glob("runs/preview/**/preview.json")
    points = [row for row in json.loads(file.read_text())["points"] if row["point"] == "optimum"]
    assert [row["weights"]["better"] for row in points] == [0, 0.5, 1]
    own = sweep[None][1]["metrics"]["better_reward"]["mean"]
    assert points[2]["scores"]["better"]["mean"] >= own, "the optimum for it is at least as good as the reference"
    assert points[2]["kl"]["mean"] >= 0


def test_a_held_out_scorer_is_shown_beside_the_first(root, sweep, monkeypatch):
    import alignlab.evaluation.scored as scored
    import alignlab.training.launch as launch

    def never(*_, **__):
        raise AssertionError("sampled or trained again")

    monkeypatch.setattr(scored, "_draw", never)
    monkeypatch.setattr(launch, "train_on_processes", never)
    second = ["scorers.safer.held_out.kind=python", "scorers.safer.held_out.function=distinct"]
    assert command(root, "-m", "algorithm=modpo", "w=0.3,0.7", *SCORERS, *second, "tracker=local") == 0
    folder = max(root.glob("runs/front/**/front.csv"), key=lambda path: path.stat().st_mtime_ns).parent
    rows = list(csv.DictReader((folder / "front.csv").open()))
    assert {row["safer_held_out_reward_n"] for row in rows} == {"12"}
    front = json.loads((folder / "front.json").read_text())
    assert front["axes"] == {"better": "better_reward", "safer": "safer_reward"}, "it is no axis"
    assert "safer_held_out_reward" in json.dumps(Parsed(folder / "front.html").data("data"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["scorers.safer.held_out.kind=python"], "scorers.safer.held_out: is to differ from scorers.safer"),
        (["scorers.safer.held_out.kind=pythn"], "scorers.safer.held_out.kind=pythn: did you mean python?"),
        (["scorers.safer.held_out.kind=length", "algorithm=pairs"], "scorers.safer.held_out: scores policies"),
    ],
)
def test_a_held_out_scorer_is_another_one(root, capsys, given, said):
    algorithm = [] if "algorithm=pairs" in given else ["algorithm=modpo"]
    assert command(root, *algorithm, *SCORERS, *given) == 2
    assert said in capsys.readouterr().err
