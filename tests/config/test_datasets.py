"""The settings of data sets: objectives chosen and named, kinds with keys of their own, configs read back."""

import json
from dataclasses import asdict

import pytest

from alignlab.config.effects import without_effect
from alignlab.config.hydra.compose import config_root, load_run_config
from alignlab.config.identity import run_folder
from alignlab.config.plan import plan_of
from alignlab.config.schema.dataset import LABELS
from alignlab.errors import ConfigError

ON_FILE = ("model=scratch", "algorithm=dpo", "dataset.path=rows.jsonl")
CHOICES = sorted(
    path.stem
    for path in (config_root("conf") / "dataset").glob("*.yaml")
    if not path.name.startswith(("_", "toy", "prompts"))
)
"""Those that hold pairs, in files."""


@pytest.mark.parametrize("choice", CHOICES)
def test_a_run_on_any_dataset_is_read_back_as_it_was(run_of, tmp_path, choice):
    config = run_of(f"dataset={choice}", *ON_FILE)
    assert config.dataset.kind in LABELS
    (tmp_path / "config.json").write_text(json.dumps(asdict(config)))
    assert load_run_config(tmp_path / "config.json") == config


def test_every_kind_has_a_choice(run_of):
    assert {run_of(f"dataset={choice}", *ON_FILE).dataset.kind for choice in CHOICES} == set(LABELS) - {"prompts"}


def test_prompts_alone_are_refused_where_pairs_are_needed(run_of):
    with pytest.raises(ConfigError, match=r"^dataset=prompts: holds prompts and no responses, of which algorithm=dpo"):
        run_folder(run_of("dataset=prompts", *ON_FILE))


def objectives(run_of, *overrides):
    return {name: item.label for name, item in run_of(*overrides).dataset.objectives.items()}


def test_use_chooses_and_orders_objectives(run_of):
    data = ("dataset=ultrafeedback", *ON_FILE)
    assert list(objectives(run_of, *data)) == ["overall", *LABELS["ultrafeedback"][1:]]
    chosen = objectives(run_of, *data, "dataset.use=[honesty,overall]")
    assert list(chosen.items()) == [("honesty", "honesty"), ("overall", "overall_score")]


def test_use_names_the_objectives_of_your_own_data(run_of):
    assert objectives(run_of, "dataset=pairs", *ON_FILE, "dataset.use=[safer]") == {"safer": "chosen"}
    for name, label in (("shp", "labels"), ("hh_rlhf", "chosen"), ("beavertails", "is_safe")):
        assert objectives(run_of, f"dataset={name}", *ON_FILE, "dataset.use=[polite]") == {"polite": label}
    named = objectives(run_of, "dataset=ranked", *ON_FILE, "dataset.use=[helpful,safe]")
    assert named == {"helpful": "helpful", "safe": "safe"}


def test_objectives_without_labels_enter_as_rewards(run_of, tmp_path):
    config = run_of("dataset=pairs", *ON_FILE, "dataset.use=[good]", "dataset.unlabelled=[brief]")
    assert {name: item.label for name, item in config.dataset.objectives.items()} == {"good": "chosen", "brief": None}
    (tmp_path / "config.json").write_text(json.dumps(asdict(config)))
    assert load_run_config(tmp_path / "config.json") == config


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["dataset=shp", "dataset.use=[prefered]"], "dataset.use=prefered: no such objective; did you mean preferred?"),
        (
            ["dataset=shp", "dataset.unlabelled=[preferred]"],
            "dataset.unlabelled=preferred: is an objective with a label",
        ),
        (["dataset=shp", "dataset.use=[polite,brief]"], "dataset.use=polite: no such objective"),
        (["dataset=ultrafeedback", "dataset.use=[polite]"], "dataset.use=polite: no such objective"),
        (["dataset=shp", "dataset.use=[]"], "dataset.use=[]: must name at least one objective"),
        (["dataset=ultrafeedback", "dataset.use=[honesty,honesty]"], "names an objective twice"),
        (["dataset=shp", "dataset.objectives.preferred.label=label"], "did you mean labels?"),
        (["dataset=shp", "dataset.objectives.preferred.label=null"], "one at least must have a label"),
        (["dataset=shp", "dataset.objectives.preferred.gold=safe"], "only the toy knows its true rewards"),
        (["dataset=shp", "dataset.min_score_ratio=0.5"], "dataset.min_score_ratio=0.5: must be >= 1"),
        (["dataset=shp", "dataset.on_bad_row=ignore"], "dataset.on_bad_row=ignore: choose one of drop, error"),
        (["dataset=shp", "dataset.overlap=keep"], "dataset.overlap=keep: choose one of drop, error"),
        (["dataset=shp", "dataset.max_bad_share=1"], "dataset.max_bad_share=1.0: must be in [0, 1)"),
        (
            ["dataset=shp", "dataset.split=devel"],
            "dataset.split=devel: did you mean dev? choose one of dev, test, train",
        ),
        (["dataset=c2_syn", "dataset.pairs=some"], "dataset.pairs=some: choose one of adjacent, all, best_worst"),
        (["dataset=beavertails", "dataset.pairs=adjacent"], "dataset.pairs=adjacent: choose one of all, matched"),
        (["dataset=pairs", "dataset.kind=nope"], "dataset.kind=nope: choose one of"),
        (["dataset=pairs", "dataset.path=null"], "dataset.path=null: must name a file"),
    ],
)
def test_settings_that_cannot_be(run_of, overrides, said):
    with pytest.raises(ConfigError) as refused:
        run_of("model=scratch", "algorithm=dpo", "dataset.path=rows.jsonl", *overrides)
    assert said in str(refused.value)


def test_how_bad_rows_are_met_is_no_part_of_a_run(run_of):
    data = ("dataset=pku_saferlhf", *ON_FILE)
    same = [(), ("dataset.on_bad_row=drop",), ("dataset.overlap=drop",), ("dataset.use=[better,safer]",)]
    assert len({run_folder(run_of(*data, *more)) for more in same}) == 1
    assert run_folder(run_of(*data)) != run_folder(run_of(*data, "dataset.use=[safer,better]"))


def test_a_toys_requests_are_no_part_of_a_run_that_takes_none(run_of):
    assert run_folder(run_of("algorithm=dpo")) == run_folder(run_of("algorithm=dpo", "dataset.requests=7"))


def test_a_synthesis_folder_counts_by_its_rows(run_of, tmp_path):
    (tmp_path / "ranked.jsonl").write_text("{}")
    given = ["dataset=c2_syn", "model=scratch", "algorithm=dpo", f"dataset.path={tmp_path}"]
    before = plan_of(run_of(*given)).inputs
    (tmp_path / "job.log").write_text("more")
    assert plan_of(run_of(*given)).inputs == before
    (tmp_path / "ranked.jsonl").write_text("{} ")
    assert plan_of(run_of(*given)).inputs != before


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("dataset.revision=v1", "dataset.revision=v1: has no effect with dataset.path"),
        ("dataset.test_split=test", "dataset.test_split=test: has no effect with dataset.path"),
        ("dataset.max_bad_share=0.2", "dataset.max_bad_share=0.2: has no effect with dataset.on_bad_row=error"),
    ],
)
def test_settings_without_effect_on_data(run_of, override, said):
    overrides = ["dataset=shp", *ON_FILE, override]
    (line,) = without_effect([run_of(*overrides)], overrides, is_sweep=False)
    assert line.startswith(said)


def test_one_objective_is_nothing_to_balance(run_of):
    data = ("dataset=shp", "model=scratch", "dataset.path=rows.jsonl")
    with pytest.raises(ConfigError, match=r"w=0\.5: preferred is the only objective.*use algorithm=dpo, or add one"):
        run_of(*data, "w=0.5")
    assert run_of(*data, "w=1").w == 1
    assert list(objectives(run_of, *data, "dataset.unlabelled=[brief]", "w=0.5")) == ["preferred", "brief"]
