"""A cache made under one template, tokenizer, length limit, weight, precision or adapter is never used under another.

Each is tried on real files: tiny models that are saved, changed in place and loaded again.
"""

import dataclasses
import json
import os
import random
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from alignlab.config.schema import PeftConfig
from alignlab.data.records import Pair
from alignlab.data.worlds import toy
from alignlab.engine.cache.scores import CacheCount, ScoreCache
from alignlab.engine.scoring.logps import response_logps
from alignlab.engine.scoring.rows import encode_pairs
from alignlab.errors import ConfigError
from alignlab.models.adapters import adapter_id, local_adapter, new_adapter
from alignlab.models.base import commit_of, load_base
from alignlab.rewards.implicit import ImplicitReward, reference_logps
from support.checkpoints import model_settings

TEMPLATE = "user: {raw_prompt} assistant: "
PEFT = PeftConfig(r=4, alpha=4.0, dropout=0.0, target_modules=["q_proj", "v_proj"])


@pytest.fixture
def saved(base, tmp_path):
    """A model's folder of its own, its settings, an adapter's folder, and the cache that all loads share."""
    model, adapter = tmp_path / "model", tmp_path / "adapter"
    shutil.copytree(base.path, model)
    save_adapter(base, adapter, seed=0)
    config = model_settings(model, TEMPLATE)
    return SimpleNamespace(model=model, adapter=adapter, config=config, root=tmp_path / "scores")


def save_adapter(base, folder, *, seed):
    model = new_adapter(base.model, PEFT, seed=seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.1)
    model.save_pretrained(folder)
    model.unload()


def pairs():
    rng = random.Random(0)
    prompts = toy.all_prompts()[:8]
    texts = [(toy.demonstration(prompt, rng), toy.demonstration(prompt, rng) + " and more") for prompt in prompts]
    return [Pair(str(n), prompt, *texts[n], group=prompt, objective="safer") for n, prompt in enumerate(prompts)]


@dataclasses.dataclass
class Scored:
    """What one load of the model took from the cache."""

    rows: int
    counts: dict
    scores: torch.Tensor
    fresh: torch.Tensor

    def assert_right(self):
        torch.testing.assert_close(self.scores, self.fresh, rtol=1e-4, atol=1e-4)


def score(saved, *, what="reference", max_length=64, autocast=False, **changes):
    """Loads the model as a run does, scores the pairs through the cache, and once more without it."""
    base = load_base(dataclasses.replace(saved.config, **changes), folder=None, device="cpu", autocast=autocast)
    rows = encode_pairs(pairs(), base.encoder, max_length=max_length, on_long="cut").responses()
    distinct = len({row.key for row in rows})
    cache, unused = ScoreCache(saved.root), ScoreCache(saved.root / f"{random.random()}")

    def scores(through):
        if what == "reference":
            return reference_logps(base, rows, cache=through, batch_size=8)
        return ImplicitReward(base, saved.adapter, beta=1.0, cache=through, batch_size=8, name=what).score_encoded(rows)

    return Scored(distinct, cache.counts, scores(cache), scores(unused))


def computed(scored, name="reference"):
    return scored.counts[name].computed


def test_an_unchanged_model_reuses_every_row(saved):
    """Control: whatever is tried below would otherwise have been reused."""
    first, second = score(saved), score(saved)
    assert first.counts["reference"] == CacheCount(computed=first.rows, reused=0)
    assert second.counts["reference"] == CacheCount(computed=0, reused=first.rows)
    assert first.scores.equal(second.scores)


def test_a_moved_model_reuses_every_row(saved, tmp_path):
    score(saved)
    saved.model.rename(tmp_path / "elsewhere")
    assert computed(score(saved, path=str(tmp_path / "elsewhere"))) == 0


def test_another_template(saved):
    score(saved)
    changed = score(saved, prompt_template="user: please {raw_prompt} assistant: ")
    assert computed(changed) == changed.rows
    changed.assert_right()


def other_words(saved):
    """The tokenizer with two words' ids exchanged: as many ids, another meaning."""
    file = saved.model / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    words = tokenizer["model"]["vocab"]
    one, two = toy.VOCABULARY[:2]
    words[one], words[two] = words[two], words[one]
    file.write_text(json.dumps(tokenizer))


def other_weights(saved):
    """Weights changed in place: same name, same size, same date."""
    (file,) = saved.model.glob("*.safetensors")
    stat = file.stat()
    weights = load_file(file)
    weights["lm_head.weight"] += 0.1 * torch.randn_like(weights["lm_head.weight"])
    save_file(weights, file, metadata={"format": "pt"})
    assert file.stat().st_size == stat.st_size
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def other_architecture(saved):
    """Same weights, read in another way."""
    file = saved.model / "config.json"
    settings = json.loads(file.read_text())
    settings["rope_parameters"]["rope_theta"] = 100.0
    file.write_text(json.dumps(settings))


@pytest.mark.parametrize("change", [other_words, other_weights, other_architecture])
def test_files_changed_in_place(saved, change):
    before = score(saved)
    change(saved)
    changed = score(saved)
    assert computed(changed) == changed.rows
    assert not torch.allclose(changed.scores, before.scores)
    changed.assert_right()


@pytest.mark.parametrize(
    "changes", [{"dtype": "bfloat16"}, {"autocast": True}, {"attn_implementation": "eager"}], ids=str
)
def test_another_way_of_computing(saved, changes):
    score(saved)
    changed = score(saved, **changes)
    assert computed(changed) == changed.rows


def test_another_length_limit_recomputes_the_rows_that_it_cuts(saved):
    whole = score(saved)
    cut = score(saved, max_length=20)
    assert 0 < computed(cut) <= cut.rows
    assert cut.counts["reference"].reused == cut.rows - computed(cut)
    cut.assert_right()
    assert (cut.scores != whole.scores).sum() >= computed(cut)


def test_a_merged_adapter(saved):
    plain = score(saved)
    merged = score(saved, adapter=str(saved.adapter))
    assert computed(merged) == merged.rows
    assert not torch.allclose(plain.scores, merged.scores)
    merged.assert_right()
    assert computed(score(saved, adapter=str(saved.adapter))) == 0
    other_settings(saved)
    assert computed(score(saved, adapter=str(saved.adapter))) == merged.rows


def other_adapter_weights(saved):
    file = saved.adapter / "adapter_model.safetensors"
    stat = file.stat()
    save_file({name: 2 * value for name, value in load_file(file).items()}, file, metadata={"format": "pt"})
    assert file.stat().st_size == stat.st_size
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def other_settings(saved):
    """lora_alpha scales the same weights differently."""
    file = saved.adapter / "adapter_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"lora_alpha": 4 * settings["lora_alpha"]}))


def as_pickle(saved):
    """The weights as adapter_model.bin, of another value."""
    file = saved.adapter / "adapter_model.safetensors"
    torch.save({name: 3 * value for name, value in load_file(file).items()}, saved.adapter / "adapter_model.bin")
    file.unlink()


@pytest.mark.parametrize("change", [other_adapter_weights, other_settings, as_pickle])
def test_an_adapter_changed_in_place(saved, change):
    before = score(saved, what="safer")
    assert computed(score(saved, what="safer"), "safer") == 0
    change(saved)
    changed = score(saved, what="safer")
    assert (computed(changed, "safer"), computed(changed)) == (changed.rows, 0)
    assert not torch.allclose(changed.scores, before.scores)
    changed.assert_right()


def test_two_adapters_in_bin_files_share_nothing(saved):
    as_pickle(saved)
    first = score(saved, what="safer")
    torch.save(
        {name: 2 * value for name, value in torch.load(saved.adapter / "adapter_model.bin").items()},
        saved.adapter / "adapter_model.bin",
    )
    second = score(saved, what="safer")
    assert computed(second, "safer") == second.rows
    assert not torch.allclose(first.scores, second.scores)


def test_an_adapter_on_changed_weights(saved):
    first = score(saved, what="safer")
    other_weights(saved)
    changed = score(saved, what="safer")
    assert (computed(changed, "safer"), computed(changed)) == (changed.rows, changed.rows)
    changed.assert_right()
    assert not torch.allclose(first.scores, changed.scores)


def test_what_moves_with_machines_is_no_part_of_an_adapter(saved, tmp_path):
    file = saved.adapter / "adapter_config.json"
    settings = json.loads(file.read_text())
    before = adapter_id(saved.adapter)
    moved = {"base_model_name_or_path": "elsewhere", "target_modules": settings["target_modules"][::-1]}
    file.write_text(json.dumps(settings | moved))
    assert adapter_id(saved.adapter) == before
    other_settings(saved)
    assert adapter_id(saved.adapter) != before  # control


def test_an_adapter_without_weights_has_no_identity(saved):
    (saved.adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="adapter_model"):
        adapter_id(saved.adapter)


# -- from the hub -----------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub's cache on this machine; nothing is fetched. Gives a function that adds a repository at a commit."""
    from huggingface_hub import constants

    root = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root))

    def add(name, source, commit):
        repository = root / f"models--{name.replace('/', '--')}"
        shutil.copytree(source, repository / "snapshots" / commit)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / "main").write_text(commit)

    return add


def test_a_hub_model_is_known_by_its_commit(saved, hub):
    """The same id is another model after its branch moved; another id is another model."""
    hub("some/model", saved.model, "a" * 40)
    first = score(saved, path="some/model")
    assert computed(first) == first.rows
    assert computed(score(saved, path="some/model")) == 0
    other_weights(saved)
    hub("some/model", saved.model, "b" * 40)
    second = score(saved, path="some/model")
    assert computed(second) == second.rows
    second.assert_right()
    assert computed(score(saved, path="some/model", revision="a" * 40)) == 0
    hub("other/model", saved.model, "c" * 40)
    assert computed(score(saved, path="other/model")) == first.rows


def test_a_folder_that_lies_like_a_snapshot_is_known_by_its_files(saved, tmp_path):
    folder = tmp_path / "snapshots" / ("a" * 40)
    shutil.copytree(saved.model, folder)
    assert commit_of(str(folder), None) is None
    score(saved, path=str(folder))
    assert computed(score(saved)) == 0


def test_what_the_hub_does_not_know_is_an_error(hub):
    with pytest.raises(ConfigError, match=r"^model.path=no/such: [^\n]*$"):
        commit_of("no/such", None)
    with pytest.raises(ConfigError, match=r"^adapter=no/such: [^\n]*$"):
        local_adapter("no/such")


def test_a_hub_adapter_is_known_by_its_files(saved, hub):
    hub("some/adapter", saved.adapter, "a" * 40)
    merged = score(saved, adapter="some/adapter")
    assert computed(merged) == merged.rows
    assert computed(score(saved, adapter=str(saved.adapter))) == 0  # the same files
    other_adapter_weights(saved)
    hub("some/adapter", saved.adapter, "b" * 40)
    changed = score(saved, adapter="some/adapter")
    assert computed(changed) == changed.rows
    changed.assert_right()


def test_the_cache_gives_what_the_model_computes(saved):
    base = load_base(saved.config, folder=None, device="cpu")
    rows = encode_pairs(pairs(), base.encoder, max_length=64).responses()
    online = response_logps(base.model, rows, batch_size=5, label="")
    for _ in range(2):
        cached = reference_logps(base, rows, cache=ScoreCache(saved.root), batch_size=8)
        torch.testing.assert_close(cached, online, rtol=1e-5, atol=1e-4)
