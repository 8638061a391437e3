"""What a user reads: `key=value: what must hold`, the nearest name, in one line."""

import pytest

from alignlab.errors import ConfigError

ROW = '{"prompt": "a b", "response_0": "x", "response_1": "y", "better_response_id": 0, "safer_response_id": 1}\n'

SAID = {
    "w=abc": "w=abc: must be a finite number",
    "w=": "w=: must be a finite number",
    "w": "w: not an override; write w=VALUE",
    "=0.3": "=0.3: no key stands before the equals sign",
    "w==0.3": "w==0.3: cannot be read; put quotes",
    "w=0.3;ls": "cannot be read; put quotes",
    "w='0.3": "cannot be read; put quotes",
    "~w": "~w: no setting can be left out; write w=VALUE",
    "~algorithm": "no setting can be left out",
    "w=${nope}": "w: Interpolation key 'nope' not found",
    "w.better=0.3": "give all weights at once",
    "w=0.1,0.2": "w=0.1,0.2: several values make a sweep; add -m",
    "dataset.path=a,b.jsonl": "add -m; if it is one value, quote it: 'dataset.path=\"a,b.jsonl\"'",
    "model.prompt_template='{system} {raw_prompt}'": "{system} is filled by nothing; {raw_prompt} is",
    "seed=x": "seed=x: must be a whole number",
    "seed=1.5": "seed=1.5: must be a whole number",
    "seed=null": "seed=null: must not be null",
    "seed=-1": "seed=-1: must be in [0, 2**32)",
    "force=maybe": "force=maybe: must be true or false",
    "trainer=x": "trainer=x: is a group of settings; set its keys",
    "algorithm=modpoo": "algorithm=modpoo: did you mean modpo? choose one of ",
    "algorithm=": "algorithm=: choose one of",
    "algorithm=[dpo,modpo]": "must be one choice",
    "algorithm.name=qqqq": "algorithm.name=qqqq: choose one of",
    "algorithm.name=sft": "algorithm.name=sft: choose it by algorithm=NAME",
    "model=nope": "model=nope: choose one of",
    "model.path=/nope": "model.path: no such key with model=tiny; other choices have it",
    "model.name=a/b": "because it names a folder",
    "model.architecture.num_attention_heads=0": "model.architecture.num_attention_heads=0: must be in [1, 65536]",
    "modle=tiny": "modle: no such key; did you mean model?",
    "beta=0.1": "beta: no such key; did you mean dataset.beta or algorithm.beta",
    "algorithm.bta=0.1": "algorithm.bta: no such key with algorithm=modpo; did you mean beta?",
    "algorithm.beta=-1": "algorithm.beta=-1.0: must be a finite number > 0",
    "algorithm.beta=nan": "algorithm.beta=nan: must be a finite number > 0",
    "algorithm.loss_type=bco_pair": "algorithm.loss_type=bco_pair: refused, it scores each response on its own",
    "algorithm.loss_type=sft": "refused, it has no reference",
    "algorithm.loss_type=sigmiod": "did you mean sigmoid?",
    "algorithm.loss_type=robust": "must be > 0 with algorithm.loss_type=robust",
    "algorithm.loss_type=[a,b]": "must be text",
    "algorithm.rewards.safer.bta=1": "algorithm.rewards.safer.bta=1: did you mean beta?",
    "algorithm.rewards.safer.beta=x": "algorithm.rewards.safer.beta=x: must be a number",
    "algorithm.rewards=3": "algorithm.rewards=3: is a group of settings",
    "trainer.learning_rate=-1": "trainer.learning_rate=-1.0: must be in (0, 100]",
    "trainer.lr_scheduler_type=nope": "trainer.lr_scheduler_type=nope: choose one of",
    "trainer.weight_decay=inf": "trainer.weight_decay=inf: must be in [0, 1e3]",
    "peft.target_modules=3": "peft.target_modules=3: must be all-linear or a list",
    "dataset.beta=-1": "dataset.beta=-1.0: must be a finite number > 0",
    "dataset.objectives.nice.label=x": "dataset.objectives.nice.label: no such key",
    "hydra.rundir=x": "hydra.rundir: cannot be set, because choosing a configuration must not run code; did you mean",
    "hydra.run.dir=": "hydra.run.dir=: must name a folder",
    "hydra.job.chdir=true": "hydra.job.chdir: cannot be set",
    "hydra/launcher=nope": "hydra/launcher=nope: choose one of",
    "+hydra.callbacks.x._target_=os.system": "hydra.callbacks.x._target_: cannot be set",
    "hydra.launcher._target_=os.system": "hydra.launcher._target_: cannot be set",
    "+foo=1": "foo: no such key",
    "++foo=1": "foo: no such key",
}


@pytest.mark.parametrize(("override", "said"), SAID.items(), ids=list(SAID))
def test_one_line_says_it(runs_of, override, said):
    with pytest.raises(ConfigError) as refused:
        runs_of(override)
    text = str(refused.value)
    assert said in text
    assert "\n" not in text
    assert len(text) < 400


def test_a_group_that_is_given_a_value_is_named_as_typed(runs_of):
    with pytest.raises(ConfigError, match=r"^algorithm\.adapters=file: is a group of settings; set its keys$"):
        runs_of("algorithm=soup", "algorithm.adapters=file")


def test_what_is_right_is_not_refused(runs_of):
    (config,) = runs_of("w=0.3", "algorithm.rewards.safer.beta=0.2", "trainer.max_steps=2", "model.pretraining.rows=9")
    assert (config.w, config.algorithm.rewards["safer"].beta, config.trainer.max_steps) == (0.3, 0.2, 2)


def test_the_wrong_preset(runs_of):
    with pytest.raises(ConfigError, match=r"^--config-name w_frnt: did you mean w_front\?"):
        runs_of(name="w_frnt")


def test_a_choice_of_ones_own_is_found_and_checked(runs_of, tmp_path):
    (tmp_path / "algorithm").mkdir()
    mine = tmp_path / "algorithm" / "mine.yaml"
    good = "defaults:\n  - modpo\n  - _self_\nbeta: 0.25\n"
    mine.write_text(good)
    (config,) = runs_of("algorithm=mine", config_dir=str(tmp_path))
    assert config.algorithm.beta == 0.25
    mine.write_text(good + "bta: 1\n")
    with pytest.raises(ConfigError, match=r"algorithm.bta(.|\n)*'algorithm/mine'"):
        runs_of("algorithm=mine", config_dir=str(tmp_path))
    with pytest.raises(ConfigError, match="did you mean mine"):
        runs_of("algorithm=mne", config_dir=str(tmp_path))


def test_a_sweep_is_every_combination(runs_of):
    runs = runs_of("w=0.1,0.9", "seed=range(0,3)", multirun=True)
    assert [(run.w, run.seed) for run in runs] == [(w, seed) for w in (0.1, 0.9) for seed in (0, 1, 2)]


def test_a_sweep_over_choices_composes_each(runs_of):
    runs = runs_of("algorithm=dpo,modpo", "seed=3", multirun=True)
    assert [(run.algorithm.name, run.seed) for run in runs] == [("dpo", 3), ("modpo", 3)]


def test_one_bad_value_refuses_the_whole_sweep(runs_of):
    for bad in ("w=0.1,abc", "seed=1,x", "algorithm=modpo,nope", "algorithm.bta=1,2", "w=glob(*)"):
        with pytest.raises(ConfigError, match=bad.partition("=")[0]):
            runs_of(bad, multirun=True)


def test_the_command_line_takes_the_place_of_a_presets_values(runs_of):
    assert [run.w for run in runs_of("w=0.2,0.4", name="w_front")] == [0.2, 0.4]
    assert [run.w for run in runs_of("w=0.2", name="w_front")] == [0.2]
    betas = {run.algorithm.beta for run in runs_of("w=0.2", name="beta_w")}
    assert betas == {0.7, 1.0, 1.5}, "what was not given stays the preset's"
    assert len(runs_of("seed=4", name="w_front")) == 7
