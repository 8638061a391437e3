"""A step is the mean over exactly its pairs, however it is computed; and nothing waits for the model between logs."""

import dataclasses
import math
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from alignlab.engine.scoring.forward import BatchLayout, engine_layers
from alignlab.engine.scoring.layout import TokenBatch
from alignlab.engine.scoring.logps import response_logps
from alignlab.models.scratch import word_tokenizer
from alignlab.training.collate import StepCollator
from alignlab.training.loop import training_arguments
from alignlab.training.losses import PreferenceLoss, reward_tilt
from alignlab.training.preference import train_preference
from support import against_trl
from support.against_trl import LORA, model_of, rows_of, table_of, trained
from support.pairs_of_tokens import plain_pairs, ranked_pairs
from support.sharded import ONE, PEFT, RECIPE, Watch

SETS = [0] * 10 + [1] * 10  # ranked_pairs() are all pairs of two sets of five


def parts_of(collator, table):
    """Pairs of each forward."""
    batch = collator(rows_of(table))
    assert sum(forward["weight"] for forward in batch["forwards"]) == pytest.approx(1)
    return [len(forward["ref_chosen_logps"]) for forward in batch["forwards"]]


def test_forwards_keep_sets_whole_up_to_the_limit():
    table = table_of(ranked_pairs(), sets=SETS)
    for limit, expected in ((None, [20]), (20, [20]), (19, [10, 10]), (10, [10, 10]), (4, [4, 4, 2, 4, 4, 2])):
        assert parts_of(StepCollator(pairs_per_forward=limit), table) == expected
    alone = table_of(ranked_pairs())
    assert parts_of(StepCollator(pairs_per_forward=19), alone) == [19, 1]


@pytest.mark.parametrize("budget", [20, 45, 60, 1000])
def test_forwards_keep_the_budget_of_tokens(budget):
    table = table_of(ranked_pairs(), sets=SETS)
    batch = StepCollator(tokens_per_forward=budget, pairs_per_forward=1)(rows_of(table))
    sizes = [(forward["layout"].num_positions, len(forward["ref_chosen_logps"])) for forward in batch["forwards"]]
    assert sum(pairs for _, pairs in sizes) == 20
    assert all(slots <= budget or pairs == 1 for slots, pairs in sizes)
    whole = StepCollator()(rows_of(table))["forwards"][0]["layout"].num_positions
    assert (len(sizes) == 1) is (budget >= whole)
    order = torch.cat([forward["ref_chosen_logps"] for forward in batch["forwards"]])
    assert order.tolist() == pytest.approx(table["ref_chosen_logps"])


@pytest.mark.parametrize("most", [20, 60, 1000])
def test_forwards_keep_both_the_number_of_pairs_and_what_memory_holds(most):
    table = table_of(ranked_pairs(), sets=SETS)
    batch = StepCollator(pairs_per_forward=4, memory_tokens=most)(rows_of(table))
    sizes = [(forward["layout"].num_positions, len(forward["ref_chosen_logps"])) for forward in batch["forwards"]]
    assert sum(pairs for _, pairs in sizes) == 20
    assert all(pairs <= 4 and (positions <= most or pairs == 1) for positions, pairs in sizes)
    if most == 1000:
        assert [pairs for _, pairs in sizes] == [4, 4, 2, 4, 4, 2], "control: memory for all changes nothing"


@pytest.fixture(scope="module")
def in_one_forward(tmp_path_factory):
    return trained_on(ranked_pairs(), tmp_path_factory.mktemp("whole"))


def trained_on(pairs, folder, **limits):
    settings = {"per_device_train_batch_size": 10}
    return trained("alignlab", model_of("llama"), table_of(pairs, sets=SETS), folder, settings=settings, **limits)


@pytest.mark.parametrize(
    "limits", [{"pairs_per_forward": 1}, {"pairs_per_forward": 4}, {"tokens_per_forward": 45}, {"memory_tokens": 45}]
)
def test_a_step_in_parts_is_the_whole_step(limits, in_one_forward, tmp_path):
    parts = trained_on(ranked_pairs(), tmp_path, **limits)
    for ours, whole in zip(parts.gradients, in_one_forward.gradients, strict=True):
        size = torch.cat([gradient.flatten() for gradient in whole.values()]).norm()
        for name, gradient in whole.items():
            assert (ours[name] - gradient).norm() <= 1e-6 * size
    for name, value in in_one_forward.weights.items():
        torch.testing.assert_close(parts.weights[name], value, rtol=0, atol=1e-6)
    for ours, whole in zip(parts.logs, in_one_forward.logs, strict=True):
        assert ours == pytest.approx(whole, rel=1e-5, abs=1e-6)


def test_parts_that_count_alike_would_not_be(in_one_forward, tmp_path, monkeypatch):
    """Control: forwards of 4, 4 and 2 pairs, a third each."""
    real = StepCollator.__call__

    def alike(self, examples):
        forwards = real(self, examples)["forwards"]
        return {"forwards": [{**forward, "weight": 1 / len(forwards)} for forward in forwards]}

    monkeypatch.setattr(StepCollator, "__call__", alike)
    parts = trained_on(ranked_pairs(), tmp_path, pairs_per_forward=4)
    assert abs(parts.logs[0]["loss"] - in_one_forward.logs[0]["loss"]) > 1e-3


def test_a_log_line_speaks_of_all_pairs_since_the_last(in_one_forward, tmp_path):
    """Pairs of the whole window; tokens of its last step."""
    settings = {"per_device_train_batch_size": 10, "logging_steps": 2, "max_steps": 3}
    table = table_of(ranked_pairs(), sets=SETS)
    found = trained("alignlab", model_of("llama"), table, tmp_path, settings=settings)
    (line,), steps = found.logs, in_one_forward.logs
    for name in ("loss", "rewards/margins", "rewards/accuracies", "logps/chosen", "logps/rejected"):
        assert line[name] == pytest.approx((steps[0][name] + steps[1][name]) / 2, rel=1e-5, abs=1e-6)
    for name in ("entropy", "mean_token_accuracy", "logits/chosen", "num_tokens"):
        assert line[name] == pytest.approx(steps[1][name], rel=1e-5)


class Shapes(TorchDispatchMode):
    """Notes numbers that are fetched and shapes that depend on values, wherever torch does so."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        by_mask = name == "aten::index" and any(part is not None and part.dtype == torch.bool for part in args[1])
        if by_mask or name in ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal"):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


class Fetches(TorchFunctionMode):
    """Notes tensors that a program takes as Python's numbers, or to the CPU."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in ("tolist", "numpy", "cpu", "item"):
            self.seen.append(func.__name__)
        return func(*args, **(kwargs or {}))


@contextmanager
def waits():
    """What a GPU would make the program wait for."""
    seen = []
    with Shapes(seen), Fetches(seen):
        yield seen


def engine_of(table, folder, *, model=None, dropout=0.0, **settings):
    own = {"train_sampling_strategy": "random", "max_grad_norm": 1.0}
    settings = own | {"per_device_train_batch_size": len(table), "logging_steps": 1000, "max_steps": 2} | settings
    engine = against_trl.engine_of(
        "alignlab",
        model or model_of("llama"),
        table,
        folder,
        settings=settings,
        lora=dataclasses.replace(LORA, dropout=dropout),
        pairs_per_forward=7,
    )
    engine.current_gradient_accumulation_steps = 1
    return engine


def one_step(engine, batch):
    """The loss of one step; its gradients stay in the model."""
    with engine_layers(engine.model, engine.batch_layout):
        return engine.training_step(engine.model, batch)


@pytest.mark.parametrize("loss_type", ["sigmoid", "ipo", "robust", "sigmoid_norm"])
def test_nothing_waits_for_the_model_between_logs(loss_type, tmp_path, monkeypatch):
    monkeypatch.setattr("alignlab.engine.scoring.cpu.ENABLED", False)  # a GPU has TRL's head
    table = table_of(ranked_pairs(), sets=SETS)
    settings = {"loss_type": [loss_type], "label_smoothing": 0.1, "bf16": False}
    engine = engine_of(table, tmp_path, **settings)
    batch = engine.data_collator(rows_of(table))
    with waits() as seen:
        one_step(engine, batch)
    assert seen == []
    with waits() as seen:
        engine.log({})
    assert seen  # control: the log itself does wait
    assert set(engine.state.log_history[-1]) >= {"rewards/margins", "logps/chosen", "num_tokens"}


def test_a_gpu_gets_its_batches_without_waiting(tmp_path, monkeypatch):
    """Accelerate would wait for each tensor's copy before the next batch is laid out."""
    asked, real = [], TokenBatch.to
    note = lambda layout, device, non_blocking=False: asked.append(non_blocking) or real(layout, device)  # noqa: E731
    monkeypatch.setattr(TokenBatch, "to", note)
    on_gpu = training_arguments(RECIPE, dataclasses.replace(ONE, device="cuda"), seed=0)
    asks = []
    for name, given in (("as a run", on_gpu["accelerator_config"]), ("control", {})):
        engine = engine_of(table_of(plain_pairs()), tmp_path / name, data_seed=0, accelerator_config=given, max_steps=1)
        asked.clear()
        engine.train()
        asks.append(any(asked))
    assert asks == [True, False]


def test_trl_itself_waits(tmp_path):
    """Control: its metrics fetch numbers after every forward."""
    engine = against_trl.engine_of("trl", model_of("llama"), table_of(ranked_pairs()), tmp_path, lora=None)
    engine.current_gradient_accumulation_steps = 1
    engine.model.requires_grad_(True)
    batch = engine.data_collator(rows_of(engine.train_dataset))
    with waits() as seen:
        engine.training_step(engine.model, batch)
    assert len(seen) >= 13


def with_references(model, pairs, *, tilt=None, autocast=False):
    """The pairs with the model's own log-probabilities as references, as a run makes them; and the rows' tilts."""
    rows = [chosen for chosen, _ in pairs] + [rejected for _, rejected in pairs]
    logps = response_logps(model, rows, batch_size=len(rows), label="", autocast=autocast).float()
    sides = {"ref_chosen_logps": logps.chunk(2)[0], "ref_rejected_logps": logps.chunk(2)[1]}
    if tilt is not None:
        sides |= dict(zip(("chosen_tilt", "rejected_tilt"), tilt.chunk(2), strict=True))
    table = table_of(pairs).remove_columns(["ref_chosen_logps", "ref_rejected_logps"])
    for name, values in sides.items():
        table = table.add_column(name, values.tolist())
    return table


def step_0(table, folder, **settings):
    """The log of the first step over all pairs at once, which is of the untrained adapter."""
    settings = {"per_device_train_batch_size": len(table), "max_steps": 1} | settings
    (log,) = trained("alignlab", model_of("llama"), table, folder, settings=settings).logs
    return log


@pytest.mark.parametrize("pairs", [plain_pairs(), ranked_pairs()], ids=["pairs", "ranked"])
def test_step_0_of_dpo_is_ln_2(pairs, tmp_path):
    log = step_0(with_references(model_of("llama"), pairs), tmp_path)
    assert log["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert log["rewards/margins"] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("weight", [0.1, 0.5, 0.9])
def test_step_0_of_modpo_is_the_sigmoid_of_the_tilted_margin(weight, tmp_path):
    """The policy is still the reference, so eq. 11 leaves -(1/w_k) * sum_i w_i Dr_i inside the sigmoid."""
    pairs, beta = plain_pairs(), 0.2
    rewards_BM = torch.randn(2 * len(pairs), 2, generator=torch.Generator().manual_seed(0))
    weights_M = torch.tensor([0.7, 0.3]) * (1 - weight)
    table = with_references(model_of("llama"), pairs, tilt=reward_tilt(rewards_BM, weights_M=weights_M, beta=beta))
    gaps = (rewards_BM[: len(pairs)] - rewards_BM[len(pairs) :]) @ weights_M / weight
    expected = -torch.nn.functional.logsigmoid(-gaps.double()).mean()
    log = step_0(table, tmp_path, beta=beta, weight=weight)
    assert log["loss"] == pytest.approx(float(expected), rel=1e-5)
    assert log["untrained_loss"] == pytest.approx(float(expected), rel=1e-5)
    assert log["tilted/margins"] == pytest.approx(-float(gaps.mean()), abs=1e-4)
    assert log["rewards/margins"] == pytest.approx(0, abs=1e-4)  # the policy is the reference: it has no rewards yet


def test_step_0_in_bfloat16_is_ln_2_too(tmp_path):
    """Reference and policy take one numeric path; a float32 reference would be off by what bfloat16 rounds away."""
    model, pairs = model_of("llama"), ranked_pairs()
    settings = {"bf16": True, "beta": 1.0}
    off = abs(step_0(with_references(model, pairs, autocast=True), tmp_path, **settings)["loss"] - math.log(2))
    mixed = abs(step_0(with_references(model, pairs), tmp_path, **settings)["loss"] - math.log(2))
    assert off < 1e-5
    assert mixed > 1e-3


@pytest.mark.parametrize("family", ["llama", "gemma3-short-window"])
def test_checkpointing_changes_memory_alone(family, tmp_path):
    table = table_of(ranked_pairs(), sets=SETS)
    found = []
    for checkpointing in (False, True):
        settings = {"gradient_checkpointing": checkpointing, "per_device_train_batch_size": 10}
        found.append(trained("alignlab", model_of(family), table, tmp_path / f"{checkpointing}", settings=settings))
    plain, recomputed = found
    for left, right in zip(plain.gradients, recomputed.gradients, strict=True):
        for name, gradient in left.items():
            torch.testing.assert_close(right[name], gradient, rtol=1e-5, atol=1e-7)
    assert [log["loss"] for log in plain.logs] == pytest.approx([log["loss"] for log in recomputed.logs], rel=1e-6)


def test_the_base_is_at_rest_after_training(tmp_path):
    """The next run of a sweep starts from it; a trainer alone leaves it in training, checkpointed, with hooks."""
    model = model_of("llama")
    with engine_layers(model, BatchLayout.PADDED):
        before = model(torch.tensor([[3, 4, 5]])).logits
    train_preference(
        SimpleNamespace(model=model, tokenizer=word_tokenizer([])),
        table_of(ranked_pairs()),
        PreferenceLoss("sigmoid", beta=0.1),
        trainer=dataclasses.replace(RECIPE, gradient_checkpointing=True),
        peft=PEFT,
        hardware=ONE,
        seed=0,
        folder=tmp_path,
        callbacks=[Watch()],
    )
    assert not any(module.training for module in model.modules())
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    assert not model.get_input_embeddings()._forward_hooks
    assert model(torch.tensor([[3, 4, 5]])).logits.equal(before)
    engine = engine_of(
        table_of(ranked_pairs()), tmp_path / "control", model=model, gradient_checkpointing=True, data_seed=0
    )
    engine.train()
    assert model.training
    assert model.get_input_embeddings()._forward_hooks


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_adapters_dropout_is_as_asked_and_the_models_own_is_off(tmp_path, dropout):
    base = model_of("llama")
    base.model.layers[0].mlp.add_module("own", torch.nn.Dropout(0.2))
    table = table_of(ranked_pairs())
    engine = engine_of(table, tmp_path, model=base, dropout=dropout)
    found = {name: module.p for name, module in engine.model.named_modules() if isinstance(module, torch.nn.Dropout)}
    assert {p for name, p in found.items() if name.endswith(".own")} == {0}
    assert {p for name, p in found.items() if "lora_dropout" in name} == ({dropout} if dropout else set())
    batch = engine.data_collator(rows_of(table))
    for name, weights in engine.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights)
    losses = {round(float(one_step(engine, batch)), 6) for _ in range(3)}
    assert len(losses) == (3 if dropout else 1)


def test_the_verdict_of_divergence_does_not_depend_on_how_often_is_logged(tmp_path):
    """Five steps, of which windows of four leave a short one at the end."""
    table, found, losses = with_references(model_of("llama"), plain_pairs()), [], []
    for often in (1, 4, 1000):
        settings = {"max_steps": 5, "logging_steps": often, "learning_rate": 0.3, "beta": 1.0, "data_seed": 0}
        engine = engine_of(table, tmp_path / str(often), **settings)
        engine.train()
        found.append(engine.divergence())
        losses = [total / pairs for pairs, total, *_ in engine.meter.steps]
    assert found[0] is not None
    assert found == found[:1] * 3
    by_windows = [sum(losses) / 5, (sum(losses[:4]) / 4 + losses[4]) / 2]
    assert by_windows[0] != pytest.approx(by_windows[1], rel=0.02), "control: windows that count alike would differ"
