"""A step of the online trainer follows the gradient of w.r - beta KL, worked out from its own samples in float64."""

import copy

import pytest
import torch
from datasets import Dataset

from alignlab.config.schema import LocalGeneratorConfig, PeftConfig
from alignlab.data.records import CutText, Turn
from alignlab.data.worlds import toy
from alignlab.models.adapters import lora_config
from alignlab.rewards.length import LengthReward
from alignlab.training.grpo import OnlineTrainer, _fallen, on_policy_arguments

BETA, GENERATIONS, LONGEST = 0.7, 4, 12
GENERATOR = LocalGeneratorConfig(
    kind="transformers", temperature=1.0, top_p=1.0, max_new_tokens=LONGEST, samples=1, prompts=1, batch_size=64
)


class Recorded(OnlineTrainer):
    """Keeps the samples and the gradient of its one step, and begins away from the reference."""

    def rollout(self, names):
        self.found = super().rollout(names)
        return self.found

    def training_step(self, *given):
        loss = super().training_step(*given)
        trained = [(name, weights) for name, weights in self.model.named_parameters() if weights.requires_grad]
        self.gradient = torch.cat([weights.grad.flatten().double() for _, weights in sorted(trained)])
        return loss


def logps_of(model, found, index):
    """Log pi of one sampled response by a plain forward, differentiable."""
    prompt, answer = found["prompt_ids"][index], found["completion_ids"][index]
    logits = model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1].double()
    return logits.log_softmax(-1)[torch.arange(len(answer)), torch.tensor(answer)].sum()


@pytest.fixture(scope="module")
def stepped(base, tmp_path_factory):
    """A trainer after one step, and its policy as it was before."""
    prompts = [(prompt, base.encoder.prompt_ids(prompt)) for prompt in toy.all_prompts()[:4]]
    arguments = {"learning_rate": 0.0, "max_steps": 1, "per_device_train_batch_size": 16, "use_cpu": True, "seed": 0}
    arguments |= {"report_to": "none", "disable_tqdm": True, "max_grad_norm": 1e9, "save_strategy": "no"}
    arguments |= {"gradient_checkpointing": False, "bf16": False}
    engine = Recorded(
        prompts=prompts,
        base=base,
        total=lambda rows: torch.tensor([len(set(row.response_ids)) / 4 for row in rows]).double(),
        beta=BETA,
        generator=GENERATOR,
        model=copy.deepcopy(base.model),
        args=on_policy_arguments(tmp_path_factory.mktemp("online"), arguments, GENERATIONS, LONGEST),
        train_dataset=Dataset.from_dict({"prompt": [str(index) for index in range(len(prompts))]}),
        processing_class=copy.deepcopy(base.tokenizer),
        peft_config=lora_config(PeftConfig(r=4, alpha=8.0, dropout=0.0, target_modules="all-linear"), base.model),
    )
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weights in engine.model.named_parameters():
            if "lora_B" in name:
                weights.normal_(std=0.3)
    engine.train()
    return engine


def gradient_by_hand(engine, *, sign=1.0, centred=True):
    """Gradient of -sum_b A_b log pi(y_b) / (B longest), A being r - beta log(pi/pi_ref) minus its group's mean."""
    found, model = engine.found, engine.accelerator.unwrap_model(engine.model)
    model.zero_grad()
    logps = torch.stack([logps_of(model, found, index) for index in range(16)])
    with model.disable_adapter(), torch.no_grad():
        ref = torch.stack([logps_of(model, found, index) for index in range(16)])
    worth = torch.tensor([len(set(ids)) / 4 for ids in found["completion_ids"]]).double()
    total = worth - sign * BETA * (logps.detach() - ref)
    groups = total.view(-1, GENERATIONS)
    advantages = (groups - groups.mean(1, keepdim=True)).flatten() if centred else total
    (-(advantages * logps).sum() / (16 * LONGEST)).backward()
    trained = [(name, weights) for name, weights in model.named_parameters() if weights.requires_grad]
    return torch.cat([weights.grad.flatten().double() for _, weights in sorted(trained)])


def test_a_step_follows_the_gradient_of_the_objective(stepped):
    wanted = gradient_by_hand(stepped)
    assert wanted.norm() > 0
    assert (stepped.gradient - wanted).norm() <= 1e-4 * wanted.norm()
    for wrong in ({"sign": -1.0}, {"sign": 0.0}, {"centred": False}):
        other = gradient_by_hand(stepped, **wrong)
        assert (stepped.gradient - other).norm() > 0.05 * wanted.norm(), f"control: {wrong}"


def test_a_group_answers_one_prompt_and_the_same_step_draws_the_same(stepped):
    found = stepped.found
    groups = [found["prompt_ids"][start : start + GENERATIONS] for start in range(0, 16, GENERATIONS)]
    assert all(ids == group[0] for group in groups for ids in group)
    assert len({tuple(group[0]) for group in groups}) == 4
    assert len({tuple(ids) for ids in found["completion_ids"]}) > 8
    known = [ids for _, ids in stepped.prompts]
    names = [str(known.index(ids)) for ids in found["prompt_ids"]]
    stepped.state.global_step = 0
    assert OnlineTrainer.rollout(stepped, names)["completion_ids"] == found["completion_ids"]
    stepped.state.global_step = 1
    assert OnlineTrainer.rollout(stepped, names)["completion_ids"] != found["completion_ids"], "control"


def test_rewards_read_the_conversation_and_what_was_said(stepped, monkeypatch):
    """Of a conversation too, whose turns no rendered prompt gives back."""
    encoder = stepped.base.encoder
    talk = (Turn("system", "red"), Turn("user", "blue"))
    prompts = [(talk, stepped.prompts[0][1]), stepped.prompts[1]]
    monkeypatch.setattr(stepped, "prompts", prompts)
    seen = []
    monkeypatch.setattr(stepped, "total", lambda rows: seen.extend(rows) or torch.zeros(len(rows)))
    found = OnlineTrainer.rollout(stepped, ["0", "1", "0"])
    assert [row.prompt for row in seen] == [talk, prompts[1][0], talk]
    for row, ids in zip(seen, found["completion_ids"], strict=True):
        ended = ids[-1] == encoder.end_id
        assert encoder.said(row).split() == encoder.tokenizer.decode(ids, skip_special_tokens=True).split()
        assert isinstance(encoder.said(row), CutText) == (not ended)
    words = LengthReward(encoder, unit="words", scale=1.0).score_encoded(seen)
    assert words.tolist() == [-float(len(encoder.said(row).split())) for row in seen]


def test_an_objective_that_fell_is_said(stepped):
    lines = [{"reward": 1.0, "reward_std": 0.5}, {"reward": 0.8}, {"reward": 0.7}]
    engine = type("Engine", (), {"state": type("State", (), {"log_history": lines})})
    assert _fallen(engine) is None
    lines[1:] = [{"reward": 0.3}, {"reward": 0.2}]
    assert "fell from 1 to 0.2" in _fallen(engine)
