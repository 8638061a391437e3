import torch

from alignlab.config.schema import PeftConfig
from alignlab.engine.scoring.logps import divergence, response_logps
from alignlab.models.adapters import new_adapter
from alignlab.models.prompts import Encoded


def plain_logps(model, row):
    """One row alone, every position projected."""
    ids = torch.tensor([row.prompt_ids + row.response_ids])
    with torch.no_grad():
        logps = torch.log_softmax(model(ids).logits[0].double(), -1)
    start = len(row.prompt_ids)
    return sum(logps[index - 1, token] for index, token in enumerate(ids[0].tolist()) if index >= start)


def test_a_batch_equals_its_rows_alone(base, encoded_rows):
    got = response_logps(base.model, encoded_rows, batch_size=7, label="")
    alone = torch.stack([plain_logps(base.model, row) for row in encoded_rows])
    torch.testing.assert_close(got.double(), alone, rtol=1e-5, atol=1e-5)


def test_batch_size_and_order_do_not_matter(base, encoded_rows):
    one = response_logps(base.model, encoded_rows, batch_size=1, label="")
    backwards = response_logps(base.model, encoded_rows[::-1], batch_size=24, label="").flip(0)
    torch.testing.assert_close(one, backwards, rtol=1e-5, atol=1e-5)


def test_what_is_random_in_training_is_off(base, encoded_rows):
    """A model that training left in its mode scores as one at rest, and keeps its mode."""
    before = response_logps(base.model, encoded_rows, batch_size=8, label="")
    norm = base.model.model.norm
    handle = norm.register_forward_hook(lambda module, _, output: output * (1 + module.training * torch.rand(1)))
    base.model.train()
    try:
        assert response_logps(base.model, encoded_rows, batch_size=8, label="").equal(before)
        assert base.model.training
        ids = torch.tensor([encoded_rows[0].prompt_ids])
        assert not base.model(ids).logits.equal(base.model(ids).logits)  # control: it is random in training
    finally:
        handle.remove()
        base.model.eval()


def test_the_prompt_is_not_scored(base, encoded_rows):
    row = encoded_rows[0]
    longer = Encoded(row.prompt_ids[:-1], row.prompt_ids[-1:] + row.response_ids)
    scored, with_prompt = response_logps(base.model, [row, longer], batch_size=2, label="")
    assert with_prompt < scored - 0.01


def test_kl_of_a_fresh_adapter_is_zero_and_of_a_changed_one_is_not(base, encoded_rows):
    model = new_adapter(base.model, PeftConfig(r=4, alpha=4.0, dropout=0.0, target_modules="all-linear"), seed=0).eval()
    try:
        fresh = divergence(model, encoded_rows, batch_size=8, label="")
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.1)
        changed = divergence(model, encoded_rows, batch_size=8, label="")
    finally:
        model.unload()
    assert fresh.kl.max() < 1e-5
    assert fresh.log_ratio.abs().max() < 1e-5
    assert changed.kl.min() > 0
    assert changed.log_ratio.abs().max() > 1e-3
