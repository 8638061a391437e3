"""A tiny checkpoint in safe-rlhf's layout scores as its own formula says, written out here once more."""

import pytest
import torch

from alignlab.checks.rewards import check_beaver_config
from alignlab.config.schema import BeaverConfig
from alignlab.engine.cache.scores import ScoreCache
from alignlab.errors import ConfigError
from alignlab.rewards.beaver import beaver_id, beaver_source, load_beaver
from alignlab.rewards.scorer import ScorerReward
from support.beaver import checkpoint, head_of, plain_score, small_llama

ROWS = [("how are you", " fine"), ("tell me more of it", " no"), ("what", " a longer answer than the others are")]
TEMPLATE = "BEGINNING OF CONVERSATION: USER: {raw_prompt} ASSISTANT:{response}"


@pytest.fixture(scope="module")
def llama():
    """A random Llama with its tokenizer."""
    return small_llama()


def settings(folder, **changed):
    given = {"kind": "beaver", "normalise": False, "path": str(folder), "revision": None, "template": TEMPLATE}
    return BeaverConfig(**(given | {"eos": True, "max_length": 100, "dtype": "float32"} | changed))


def scores(folder, cache, **changed):
    config = settings(folder, **changed)
    source = beaver_source(config)

    def load():
        return load_beaver(source, config, device="cpu", batch_size=2, label="")

    reward = ScorerReward(
        beaver_id(source, config), load, sign=source.sign, cache=ScoreCache(cache), encoder=None, name="safer"
    )
    return reward.score(*zip(*ROWS, strict=True))


def plain(llama, **settings):
    """Each row alone."""
    return torch.tensor([plain_score(llama, *row, **settings) for row in ROWS]).float()


@pytest.mark.parametrize("files", [1, 3], ids=["one file", "three files"])
def test_a_reward_is_shifted_and_scaled(llama, tmp_path, files):
    folder = checkpoint(llama, tmp_path / "m", files=files)
    torch.testing.assert_close(scores(folder, tmp_path / "c"), plain(llama, normalised=True))


def test_a_cost_is_scaled_only_and_negated(llama, tmp_path):
    folder = checkpoint(llama, tmp_path / "m", score_type="cost")
    found = scores(folder, tmp_path / "c")
    torch.testing.assert_close(found, plain(llama, normalised=True, cost=True))
    raw = plain(llama, normalised=False)
    assert (found.sign() == -raw.sign()).all(), "a cost above 0 is harmful, whatever its scale"


def test_without_do_normalize_the_head_speaks_for_itself(llama, tmp_path):
    folder = checkpoint(llama, tmp_path / "m", do_normalize=False)
    torch.testing.assert_close(scores(folder, tmp_path / "c"), plain(llama, normalised=False))
    cost = checkpoint(llama, tmp_path / "n", do_normalize=False, score_type="cost")
    torch.testing.assert_close(scores(cost, tmp_path / "c"), -plain(llama, normalised=False))


def test_a_head_without_bias(llama, tmp_path):
    folder = checkpoint(llama, tmp_path / "m", head=head_of(bias=False), architectures=["LlamaForScore"])
    torch.testing.assert_close(scores(folder, tmp_path / "c"), plain(llama, normalised=True, bias=0.0))


def test_mean_and_variance_may_stand_in_the_config(llama, tmp_path):
    head = {name: tensor for name, tensor in head_of().items() if "normalizer" not in name}
    folder = checkpoint(llama, tmp_path / "m", head=head, mean=[-3.0], var=[6.25])
    torch.testing.assert_close(scores(folder, tmp_path / "c"), plain(llama, normalised=True))


def test_eos_is_a_choice_that_changes_the_score(llama, tmp_path):
    folder = checkpoint(llama, tmp_path / "m")
    with_eos, without = (scores(folder, tmp_path / "c", eos=eos) for eos in (True, False))
    torch.testing.assert_close(without, plain(llama, normalised=True, eos=False))
    assert (with_eos - without).abs().min() > 1e-3, "and the cache keeps the two apart"


def test_a_checkpoint_that_lacks_weights_is_refused(llama, tmp_path):
    folder = checkpoint(llama, tmp_path / "m", without=("model.layers.1.mlp.up_proj.weight",))
    with pytest.raises(ConfigError, match=r"the checkpoint lacks layers\.1\.mlp\.up_proj\.weight"):
        scores(folder, tmp_path / "c")
    headless = checkpoint(llama, tmp_path / "n", without=("score_head.weight",))
    with pytest.raises(ConfigError, match=r"needs a score_head\.weight of \(1, hidden size\); there is none"):
        scores(headless, tmp_path / "c")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"architectures": ["LlamaForCausalLM"], "score_type": "reward"}, "is no beaver model"),
        ({"architectures": ["LlamaForScore"]}, "score_type=None in its config.json: must be reward or cost"),
        ({"architectures": ["LlamaForScore"], "score_type": "critic"}, "score_type=critic"),
        ({"architectures": ["LlamaForScore"], "score_type": "cost", "score_dim": 2}, "score_dim=2"),
    ],
)
def test_a_config_of_another_model_is_refused(found, said):
    with pytest.raises(ConfigError, match=said):
        check_beaver_config("reward.path=x", found)
