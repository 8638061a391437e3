"""Classifiers: trained here, saved with their head, found again; others are asked as they ask themselves."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from alignlab.config.schema import ClassifierConfig, HardwareConfig, PeftConfig
from alignlab.engine.cache.scores import ScoreCache
from alignlab.errors import ConfigError
from alignlab.io.atomic import write_json
from alignlab.io.hashes import sealed, unsealed
from alignlab.models.cards import ClassifierCard, save_card
from alignlab.rewards.classifier import as_scorer, classifier_source, load_classifier, new_classifier
from alignlab.rewards.reading import TextReader, Tokens
from alignlab.rewards.scorer import ScorerReward
from alignlab.training.classifier import read_pairs, train_classifier
from alignlab.training.cost import cost_loss
from support import sharded

TEMPLATE = "user: {raw_prompt} assistant: "
PEFT = PeftConfig(r=4, alpha=8.0, dropout=0.1, target_modules="all-linear")
CPU = HardwareConfig(device="cpu", processes=1, nodes=1, bf16=False, fsdp=False)
RECIPE = dataclasses.replace(
    sharded.RECIPE,
    max_steps=6,
    per_device_train_batch_size=16,
    gradient_accumulation_steps=1,
    max_length=60,
    lr_scheduler_type="constant",
    save_steps=2,
)


class Stop(Exception):
    """The machine is switched off."""


def train(base, pairs, folder, *, full=False, stop_at=None, steps=6, losses=None, safe=None, batch=16):
    """A classifier trained on the pairs, in folder/reward; switched off after `stop_at` steps."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == stop_at:
                raise Stop

        def on_log(self, args, state, control, logs=None, **_):
            if losses is not None and "loss" in logs:
                losses.append(logs["loss"])

    tokenizer = AutoTokenizer.from_pretrained(base.path)
    reader = TextReader(tokenizer, template=TEMPLATE, eos=True, max_length=60)
    train_classifier(
        base.path,
        None,
        read_pairs(pairs, reader, safe).table,
        dtype="float32",
        trainer=dataclasses.replace(RECIPE, max_steps=steps, per_device_train_batch_size=batch),
        hardware=CPU,
        seed=0,
        folder=folder / "reward",
        checkpoints=folder / "checkpoints",
        peft=None if full else PEFT,
        callbacks=[Watch()],
    )
    card = ClassifierCard("classifier", "long", base.id, TEMPLATE, True, 60, "toy", "data")
    save_card(folder / "reward", card)
    return folder / "reward"


@pytest.fixture(scope="module")
def trained(base, pairs, tmp_path_factory):
    """(an adapter, a whole model), each trained for six steps."""
    folder = tmp_path_factory.mktemp("classifiers")
    return train(base, pairs, folder / "lora"), train(base, pairs, folder / "full", full=True)


def settings(**changed):
    given = {"kind": "classifier", "normalise": False, "path": None, "revision": None, "template": None}
    given |= {"eos": True, "max_length": 60, "negate": False, "dtype": "float32"}
    return ClassifierConfig(**(given | changed))


def reward(base, folder, cache, **changed):
    config = settings(**changed)
    source = classifier_source("algorithm.rewards.safer", config, str(folder), base)

    def load():
        return load_classifier(source, device="cpu", batch_size=8, label="")

    sign = -1.0 if config.negate else 1.0
    return ScorerReward(source.id, load, sign=sign, cache=ScoreCache(cache), encoder=base.encoder, name="safer")


def scores(base, folder, cache, texts, **changed):
    return reward(base, folder, cache, **changed).score(*zip(*texts, strict=True))


FRESH = """
import json, sys
from types import SimpleNamespace
from alignlab.config.schema import ClassifierConfig
from alignlab.rewards.classifier import classifier_source, load_classifier
base, config, texts, folders = map(json.loads, sys.argv[1:])
for folder in folders:
    source = classifier_source("reward", ClassifierConfig(**config), folder, SimpleNamespace(**base))
    reader, ask = load_classifier(source, device="cpu", batch_size=8, label="")
    print(json.dumps(ask(reader.read_all(texts)).tolist()))
"""


@pytest.mark.slow
def test_a_fresh_process_finds_the_same_scores(base, trained, texts, tmp_path):
    here = []
    for folder in trained:
        source = classifier_source("reward", settings(), str(folder), base)
        reader, ask = load_classifier(source, device="cpu", batch_size=8, label="")
        here.append(ask(reader.read_all(texts)))
        torch.testing.assert_close(scores(base, folder, tmp_path / folder.parent.name, texts), here[-1])
    known = {"path": base.path, "revision": None, "id": base.id}
    given = (known, dataclasses.asdict(settings()), texts, [str(folder) for folder in trained])
    command = [sys.executable, "-c", FRESH, *map(json.dumps, given)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert ended.returncode == 0, ended.stderr
    there = [torch.tensor(json.loads(line)) for line in ended.stdout.splitlines() if line.startswith("[")]
    for mine, theirs in zip(here, there, strict=True):
        assert mine.std() > 0.01
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)  # the cache batches in an order of its own


def test_the_head_was_trained_and_is_in_the_adapter(base, trained):
    adapter, whole = trained
    (head,) = [tensor for name, tensor in load_file(adapter / "adapter_model.safetensors").items() if "score" in name]
    fresh = new_classifier(base.path, revision=None, dtype=torch.float32, seed=0).score.weight
    assert not head.equal(fresh.detach())
    assert "score.weight" in load_file(whole / "model.safetensors")


def test_training_starts_at_the_bradley_terry_loss_and_learns(base, pairs, tmp_path):
    losses = []
    folder = train(base, pairs, tmp_path, steps=12, losses=losses)
    start = new_classifier(base.path, revision=None, dtype=torch.float32, seed=0).eval()
    reader = TextReader(AutoTokenizer.from_pretrained(base.path), template=TEMPLATE, eos=True, max_length=60)
    ask = as_scorer(start, batch_size=16, label="")
    chosen = ask(reader.read_all([(pair.prompt, pair.chosen) for pair in pairs]))
    rejected = ask(reader.read_all([(pair.prompt, pair.rejected) for pair in pairs]))
    expected = -torch.nn.functional.logsigmoid(chosen - rejected)
    assert abs(losses[0] - expected.mean()) < 3 * expected.std() / 4, "a batch of 16 before the first step"
    one = reward(base, folder, tmp_path / "c")
    prompts = [pair.prompt for pair in pairs]
    margins = one.score(prompts, [pair.chosen for pair in pairs]) - one.score(prompts, [p.rejected for p in pairs])
    assert (margins > 0).float().mean() > 0.8, "length is easy to learn"


@pytest.mark.slow
def test_a_cost_model_starts_at_its_own_loss_and_learns_the_sign(base, pairs, tmp_path):
    """Whole batches: the first loss is the mean over all pairs. Long responses are called safe."""
    longest = sorted(len(text) for pair in pairs for text in (pair.chosen, pair.rejected))[len(pairs)]
    safe = [(len(pair.chosen) > longest, len(pair.rejected) > longest) for pair in pairs]
    losses = []
    folder = train(base, pairs, tmp_path / "cost", steps=12, losses=losses, safe=safe, batch=len(pairs))
    start = new_classifier(base.path, revision=None, dtype=torch.float32, seed=0).eval()
    reader = TextReader(AutoTokenizer.from_pretrained(base.path), template=TEMPLATE, eos=True, max_length=60)
    both = [[(pair.prompt, getattr(pair, part)) for pair in pairs] for part in ("chosen", "rejected")]
    scores_2P = torch.stack([as_scorer(start, batch_size=16, label="")(reader.read_all(texts)) for texts in both])
    safe_2P = torch.tensor(safe).T
    assert losses[0] == pytest.approx(float(cost_loss(scores_2P, safe_2P).mean()), rel=1e-5)
    assert losses[0] != pytest.approx(float(cost_loss(scores_2P, ~safe_2P).mean()), rel=1e-3), "control: wrong signs"
    trained = reward(base, folder, tmp_path / "c")
    found_2P = torch.stack([trained.score(*zip(*texts, strict=True)) for texts in both])
    assert ((found_2P > 0) == safe_2P).float().mean() > 0.8
    plain = reward(base, train(base, pairs, tmp_path / "plain", steps=12, batch=len(pairs)), tmp_path / "p")
    plain_2P = torch.stack([plain.score(*zip(*texts, strict=True)) for texts in both])
    assert ((plain_2P > 0) == safe_2P).float().mean() < 0.75, "control: the order alone leaves zero anywhere"


def test_interrupted_and_resumed_is_uninterrupted(base, pairs, trained, tmp_path):
    for full, whole in enumerate(trained):
        folder = tmp_path / str(full)
        with pytest.raises(Stop):
            train(base, pairs, folder, full=bool(full), stop_at=3)
        assert not (folder / "reward").exists()
        resumed = train(base, pairs, folder, full=bool(full))
        name = "model.safetensors" if full else "adapter_model.safetensors"
        assert (resumed / name).read_bytes() == (whole / name).read_bytes()


def test_without_the_checkpoint_it_would_not_be(base, pairs, trained, tmp_path):
    """Control: the test above can fail."""
    with pytest.raises(Stop):
        train(base, pairs, tmp_path, stop_at=3)
    for state in tmp_path.glob("checkpoints/*/optimizer.pt"):
        state.unlink()
    for seal in tmp_path.glob("checkpoints/*/manifest.json"):
        sealed = json.loads(seal.read_text())
        sealed.pop("optimizer.pt")
        seal.write_text(json.dumps(sealed))
    resumed = train(base, pairs, tmp_path)
    name = "adapter_model.safetensors"
    assert (resumed / name).read_bytes() != (trained[0] / name).read_bytes()


def test_a_cost_is_negated_and_the_cache_serves_both_signs(base, trained, texts, tmp_path):
    plus = scores(base, trained[0], tmp_path, texts)
    one = reward(base, trained[0], tmp_path, negate=True)
    one._load = None  # nothing must be loaded: the scores are known
    assert one.score(*zip(*texts, strict=True)).equal(-plus)
    assert one.id.endswith(":negated")


def test_texts_and_tokens_of_the_base_model_score_alike(base, trained, texts, tmp_path):
    one = reward(base, trained[0], tmp_path)
    assert one.score_encoded(base.encoder.encode_all(texts)).equal(one.score(*zip(*texts, strict=True)))


def test_the_card_says_how_it_reads(base, trained, texts, tmp_path):
    one = scores(base, trained[0], tmp_path / "a", texts)
    other = scores(base, trained[0], tmp_path / "b", texts, max_length=2000, eos=False)
    assert one.equal(other), "template, EOS and limit are those of its training"
    with pytest.raises(ConfigError, match=r"algorithm\.rewards\.safer\.template='Q: \{raw_prompt\}': .* trained with"):
        reward(base, trained[0], tmp_path, template="Q: {raw_prompt}")


def test_an_adapter_without_its_head_is_refused(base, trained, tmp_path):
    """TRL and others have saved such adapters: they score by a random head, and look fine."""
    headless = tmp_path / "headless"
    shutil.copytree(trained[0], headless)
    file = headless / "adapter_model.safetensors"
    save_file({name: tensor for name, tensor in load_file(file).items() if "score" not in name}, file)
    with pytest.raises(ConfigError, match="the adapter holds no score head"):
        reward(base, headless, tmp_path)


def test_an_adapter_on_another_model_is_refused(base, trained, tmp_path):
    elsewhere = dataclasses.replace(base, id="another", path="/nowhere")
    found = reward(elsewhere, trained[0], tmp_path)
    assert found.id == reward(base, trained[0], tmp_path).id, "it names what it was trained on, and that is there"
    moved = tmp_path / "moved"
    shutil.copytree(trained[0], moved)
    card = json.loads((moved / "alignlab.json").read_text())
    write_json(moved / "alignlab.json", sealed({**unsealed(card), "files": {}}))
    named = json.loads((moved / "adapter_config.json").read_text())
    (moved / "adapter_config.json").write_text(json.dumps(named | {"base_model_name_or_path": "/gone"}))
    with pytest.raises(ConfigError, match="was trained on /gone, which is not there"):
        reward(elsewhere, moved, tmp_path)
    shutil.copytree(base.path, tmp_path / "changed")
    (tmp_path / "changed" / "note.txt").write_text("another model")
    changed = named | {"base_model_name_or_path": str(tmp_path / "changed")}
    (moved / "adapter_config.json").write_text(json.dumps(changed))
    with pytest.raises(ConfigError, match="was trained on another model than"):
        reward(elsewhere, moved, tmp_path)


def test_a_checkpoint_without_a_head_is_refused(base, tmp_path):
    headless = tmp_path / "headless"
    shutil.copytree(base.path, headless)
    with pytest.raises(ConfigError, match="has 2 labels, a reward needs one"):
        scores(base, headless, tmp_path, [("p", "r")], template=TEMPLATE)
    config = json.loads((headless / "config.json").read_text())
    (headless / "config.json").write_text(json.dumps(config | {"id2label": {"0": "LABEL_0"}}))
    with pytest.raises(ConfigError, match=r"the checkpoint lacks score\.weight"):
        scores(base, headless, tmp_path, [("p", "r")], template=TEMPLATE)


def foreign(base, folder, **changed):
    """A classifier made elsewhere, with transformers alone."""
    model = AutoModelForSequenceClassification.from_pretrained(base.path, num_labels=1)
    torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(0))
    for name, value in changed.items():
        setattr(model.config, name, value)
    model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("pad", [None, 0, 2, 7], ids=["none", "its own", "EOS", "a word"])
def test_a_row_scores_in_a_batch_as_it_does_alone(base, texts, tmp_path, pad):
    """The library's own forward, a row at a time, is what the model's makers saw."""
    folder = foreign(base, tmp_path / "m", pad_token_id=pad)
    found = scores(base, folder, tmp_path / "c", texts, template=TEMPLATE, max_length=100)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    reader = TextReader(base.tokenizer, template=TEMPLATE, eos=True, max_length=100)
    with torch.no_grad():
        alone = [float(model(torch.tensor([row.ids])).logits) for row in reader.read_all(texts)]
    torch.testing.assert_close(found, torch.tensor(alone), rtol=1e-4, atol=1e-5)


def test_a_fixed_padding_token_would_score_other_tokens(base):
    """Control: with a padding token that ends some row, that row is scored too early."""
    model = new_classifier(base.path, revision=None, dtype=torch.float32, seed=0).eval()
    rows = [Tokens([1, 8, 9, 7]), Tokens([1, 8, 9, 10, 11, 12])]
    model.config.pad_token_id = None
    right = as_scorer(model, batch_size=2, label="")(rows)
    assert model.config.pad_token_id is None
    model.config.pad_token_id = 7
    wrong = as_scorer(model, batch_size=2, label="")(rows)
    assert not torch.allclose(right[0], wrong[0])
    torch.testing.assert_close(right[1], wrong[1])


def test_sixteen_bits_keep_a_head_of_thirty_two(base, trained, texts, tmp_path):
    rough = scores(base, trained[0], tmp_path, texts, dtype="bfloat16")
    fine = scores(base, trained[0], tmp_path, texts)
    assert not rough.equal(fine)
    torch.testing.assert_close(rough, fine, rtol=0.1, atol=0.1)
    assert not rough.equal(rough.bfloat16().float()), "the scores themselves are not rounded to 16 bits"


def test_releasing_loads_anew_and_changes_nothing(base, trained, texts, tmp_path):
    one = reward(base, trained[0], tmp_path)
    first = one.score(*zip(*texts[:4], strict=True))
    one.release()
    assert one._loaded is None
    again = one.score(*zip(*texts, strict=True))
    assert again[:4].equal(first)


def test_an_adapter_keeps_the_base_model_as_it_was(base, trained, texts, tmp_path):
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    scores(base, trained[0], tmp_path, texts)
    assert not isinstance(base.model, PeftModel)
    assert all(tensor.equal(before[name]) for name, tensor in base.model.state_dict().items())
