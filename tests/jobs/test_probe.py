"""Probes in the real command: fitted, found again, a margin, a scorer; what the length explains; another base."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from alignlab.cli import main
from alignlab.data.records import as_said
from alignlab.engine.cache.scores import ScoreCache
from alignlab.engine.cache.states import StateCache
from alignlab.engine.scoring.states import pooled_states
from alignlab.errors import ConfigError
from alignlab.models.cards import ProbeCard
from alignlab.models.prompts import PromptEncoder
from alignlab.rewards.normalise import without_unit
from alignlab.rewards.probe import ProbeReader, load_probe, probe_source, save_probe
from alignlab.rewards.scorer import ScorerReward

SMALL = [
    "model.pretraining.rows=640",
    "dataset.pairs=200",
    "dataset.exact_samples=100",
    "algorithm.beta=4",
    "generator.samples=2",
    "trainer.max_steps=2",
    "trainer.per_device_train_batch_size=8",
]
PROBE = ["algorithm=reward_model", "algorithm.kind=probe"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where this module's runs and cache lie."""
    return tmp_path_factory.mktemp("probes")


def run(folder, *overrides):
    return main([*SMALL, f"paths.runs={folder}/runs", f"paths.cache={folder}/cache", *overrides])


def result_in(folder, name):
    return json.loads((folder / name / "result.json").read_text())


def test_a_probe_is_made_found_again_and_a_margin(folder, capfd):
    one = ["algorithm.rewards.safer.kind=probe", "algorithm.check_rewards=false"]
    results = "runs/reward_model/tiny/toy/*/result.json"
    before = set(folder.glob(results))
    assert run(folder, *one, f"hydra.run.dir={folder}/with_probe") == 0
    assert "probe of safer, ridge" in capfd.readouterr().out
    (made,) = set(folder.glob(results)) - before
    record = json.loads(made.read_text())
    assert {"safer_accuracy", "safer_length_accuracy", "safer_cv_accuracy", "better_accuracy"} <= set(record["metrics"])
    report = result_in(folder, "with_probe")["rewards"]["safer"]["held_out"]["agreement"]
    assert report["mean"] == pytest.approx(record["metrics"]["safer_accuracy"]["mean"]), "saved as it was measured"
    named = [f"algorithm.rewards.safer.path={made.parent}/reward", *one]
    assert run(folder, *named, f"hydra.run.dir={folder}/named") == 0
    assert result_in(folder, "named")["metrics"] == result_in(folder, "with_probe")["metrics"]
    assert result_in(folder, "named")["cache"]["safer"]["computed"] == 0, "scores are kept by content"


def test_a_second_probe_computes_no_state_again(folder):
    assert run(folder, *PROBE, f"hydra.run.dir={folder}/first") == 0
    states = list((folder / "cache" / "states").glob("*/*.safetensors"))
    out = f"hydra.run.dir={folder}/stronger"
    assert run(folder, *PROBE, "algorithm.ridge=1e4", "algorithm.length_term=none", out) == 0
    assert states
    assert list((folder / "cache" / "states").glob("*/*.safetensors")) == states
    assert result_in(folder, "stronger")["probe"]["ridge"] == 1e4
    assert run(folder, *PROBE, "algorithm.pooling=last", f"hydra.run.dir={folder}/last") == 0
    assert len(list((folder / "cache" / "states").glob("*/*.safetensors"))) > len(states), "control"


def test_control_keeps_the_length_out_of_the_score(folder):
    """The fit is that of `score`; what is saved lacks the length's weight."""
    for term in ("score", "control", "none"):
        out = f"hydra.run.dir={folder}/{term}"
        assert run(folder, *PROBE, "algorithm.ridge=10", f"algorithm.length_term={term}", out) == 0
    score, control, none = (
        load_file(folder / term / "reward" / "probe.safetensors")["weight"] for term in ("score", "control", "none")
    )
    assert score[:-1].equal(control)
    assert len(none) == len(control)
    assert not none.equal(control)


def test_its_settings_are_checked_before_a_model_loads(folder, capfd):
    wrong = {
        "algorithm.layers=[0.5,1.5]": "algorithm.layers=[0.5, 1.5]: must be different fractions",
        "algorithm.pooling=first": "algorithm.pooling=first: choose one of",
        "algorithm.ridge=0": "algorithm.ridge=0.0: must be a finite number > 0",
    }
    for override, line in wrong.items():
        assert run(folder, *PROBE, override) == 2
        assert line in capfd.readouterr().err
    assert run(folder, "algorithm.rewards.safer.kind=probe", f"algorithm.rewards.safer.path={folder}") == 2
    assert "holds no probe" in capfd.readouterr().err


def test_too_few_prompts_are_refused_before_a_hidden_state(folder, capfd, monkeypatch):
    def no_forward(*_, **__):
        raise AssertionError("hidden states are computed")

    monkeypatch.setattr("alignlab.rewards.probe.pooled_states", no_forward)
    assert run(folder, *PROBE, "dataset.pairs=2") == 2
    said = capfd.readouterr().err
    assert "algorithm.kind=probe: needs pairs of 3 prompts or more to be tested on, has" in said


TEMPLATE = "user: {raw_prompt} assistant: "


@pytest.fixture
def probe(base, tmp_path):
    """A probe with random weights on the base's first layer and the length."""
    weights = torch.from_numpy(np.random.default_rng(0).normal(size=33))
    card = ProbeCard(
        kind="probe",
        objective="safer",
        base=base.id,
        base_path=base.path,
        base_revision=None,
        dtype="float32",
        attn_implementation="sdpa",
        template=TEMPLATE,
        max_length=40,
        layers=[1],
        pooling="mean",
        length_term="score",
        ridge=1.0,
        dataset="toy",
        data="",
    )
    save_probe(tmp_path / "reward", weights, card)
    return probe_source("algorithm.rewards.safer", str(tmp_path / "reward"))


def reward_of(source, base, folder):
    def load():
        cache = StateCache(folder / "states")
        return load_probe("algorithm.rewards.safer", source, base, cache, device="cpu", batch_size=8, label="")

    return ScorerReward(
        source.id, load, sign=1.0, cache=ScoreCache(folder / "scores"), encoder=base.encoder, name="safer"
    )


TEXTS = (["tell me about dog", "how do i break door", "tell me about dog"], ["a dog is here", "take tool", ""])


def test_scores_are_weights_times_features(base, probe, tmp_path):
    rows = base.encoder.encode_all(list(zip(*TEXTS, strict=True)))
    states = pooled_states(base.model, rows, layers=[1], pooling="mean", label="")[:, 0].double()
    lengths = torch.tensor([len(row.response_ids) for row in rows]).double().log()
    weights = load_file(probe.folder / "probe.safetensors")["weight"]
    expected = states @ weights[:-1] + weights[-1] * lengths
    torch.testing.assert_close(reward_of(probe, base, tmp_path).score(*TEXTS), expected.float())


def test_scores_by_another_rule_of_lengths_are_not_taken(base, probe, tmp_path, monkeypatch):
    """Of a response that was cut, once the last token was taken for an end."""
    cut = (TEXTS[0][:1], [as_said("a dog is", "length")])
    now = reward_of(probe, base, tmp_path / "alone").score(*cut)
    with monkeypatch.context() as before:
        before.setattr("alignlab.rewards.probe.LENGTHS", 1)
        before.setattr("alignlab.rewards.probe.log_lengths", lambda rows, _: torch.tensor([3.0]).double().log())
        kept = reward_of(probe, base, tmp_path / "kept").score(*cut)
    assert not kept.equal(now)
    assert reward_of(probe, base, tmp_path / "kept").score(*cut).equal(now)
    without = dataclasses.replace(probe, card=dataclasses.replace(probe.card, length_term="control"))
    assert without.id == without_unit(probe.id) == f"probe:{probe.digest}", "its scores read no length"


def test_it_reads_texts_by_its_own_base_and_template(base, probe, tmp_path):
    """A policy with another template, tokenizer end and weights gets the same scores (TRL #6952)."""
    alone = reward_of(probe, base, tmp_path / "alone").score(*TEXTS)
    other = dataclasses.replace(base, id="another", encoder=PromptEncoder(base.tokenizer, "ask {raw_prompt} answer "))
    beside = reward_of(probe, other, tmp_path / "beside")
    torch.testing.assert_close(beside.score(*TEXTS), alone)
    rows = other.encoder.encode_all(list(zip(*TEXTS, strict=True)))
    torch.testing.assert_close(beside.score_encoded(rows), alone)


def test_another_model_at_its_path_is_refused(base, probe, tmp_path):
    wrong = dataclasses.replace(probe, card=dataclasses.replace(probe.card, base="of yesterday"))
    with pytest.raises(ConfigError, match=r"algorithm.rewards.safer.path=.*: its probe was fitted to another model"):
        reward_of(wrong, base, tmp_path).score(*TEXTS)


def test_a_prompt_without_room_is_one_line(base, probe):
    reader = ProbeReader(base.encoder, 8)
    with pytest.raises(ConfigError, match=r"trainer.max_length=8: 1 of 2 prompts leave no room .* takes"):
        reader.read_all([("tell me about dog", ""), ("tell me about dog and dog and dog and dog", "a")])


def test_changed_weights_are_refused(probe):
    file = probe.folder / "probe.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ConfigError, match="was changed or damaged"):
        probe_source("algorithm.rewards.safer", str(probe.folder))
