"""A language model whose every response can be listed: two tokens, three positions, eight responses.

It is a table from context to next-token logits, so that every distribution over the eight can be reached and the loss's
minimiser is the theory's, not the architecture's.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel, TrainingArguments

from alignlab.engine.scoring.logps import response_logps
from alignlab.models.prompts import Encoded
from alignlab.training.losses import PreferenceLoss, reward_tilt
from alignlab.training.preference import PreferenceTrainer

LENGTH = 3
RESPONSES = [Encoded([0], list(tokens)) for tokens in itertools.product((0, 1), repeat=LENGTH)]
"""All of them; with a vocabulary of two tokens and no end token their probabilities sum to one."""

ODDS = (1, 4, 2, 1, 2, 4, 1, 2)
"""exp(r_k) of the trained objective, whole numbers, so that Bradley-Terry's probabilities are ratios of counts."""

PAIRS_EACH = 30
"""Rows of one unordered pair: 30 is divisible by every sum of two odds, divided by their common factor."""


class Backbone(nn.Module):
    """The table: one row of two logits a context, contexts numbered by the tokens so far."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = nn.Parameter(torch.randn(2 ** (LENGTH + 2), 2, generator=generator))

    def forward(self, input_ids: Tensor, **_: Any) -> SimpleNamespace:
        """Rows of the table; a context is its tokens read as a binary number with a leading 1."""
        context = torch.ones_like(input_ids[:, 0])
        contexts = []
        for position in range(input_ids.shape[1]):
            context = 2 * context + input_ids[:, position]
            contexts.append(context)
        return SimpleNamespace(last_hidden_state=self.table[torch.stack(contexts, dim=1)])


class TableModel(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """The table in transformers' clothes."""

    config_class = PretrainedConfig
    base_model_prefix = "model"

    def __init__(self) -> None:
        super().__init__(PretrainedConfig(vocab_size=2, hidden_size=2, num_hidden_layers=1, pad_token_id=0))
        self.model = Backbone()
        self.lm_head = nn.Linear(2, 2, bias=False)
        self.lm_head.weight = nn.Parameter(torch.eye(2), requires_grad=False)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """The table initialises itself."""

    def get_input_embeddings(self) -> nn.Linear:
        """Two tokens wide, as an embedding would be."""
        return self.lm_head

    def get_output_embeddings(self) -> nn.Linear:
        """The identity: hidden states are logits."""
        return self.lm_head

    def forward(self, input_ids: Tensor, logits_to_keep: Any = slice(None), **_: Any) -> SimpleNamespace:
        """Logits at the positions asked for."""
        return SimpleNamespace(logits=self.lm_head(self.model(input_ids).last_hidden_state[:, logits_to_keep]))


def logps_of(model: nn.Module) -> Tensor:
    """Log pi of the eight responses, shape (8,)."""
    return response_logps(model, RESPONSES, batch_size=8, label="")


def population_rows(rewards_BM: Tensor, weights_M: Sequence[float], *, beta: float, ref_logps_B: Tensor) -> Dataset:
    """Every ordered pair as often as Bradley-Terry prefers it, with the tilted reference."""
    tilted = (ref_logps_B + reward_tilt(rewards_BM, weights_M=torch.tensor(weights_M), beta=beta)).tolist()
    rows = []
    for chosen, rejected in itertools.permutations(range(len(RESPONSES)), 2):
        row = {
            "prompt_ids": RESPONSES[chosen].prompt_ids,
            "chosen_ids": RESPONSES[chosen].response_ids,
            "rejected_ids": RESPONSES[rejected].response_ids,
            "ref_chosen_logps": tilted[chosen],
            "ref_rejected_logps": tilted[rejected],
        }
        rows += [row] * (PAIRS_EACH * ODDS[chosen] // (ODDS[chosen] + ODDS[rejected]))
    return Dataset.from_list(rows)


def any_two(rewards_BM: Tensor, weights_M: Sequence[float], *, beta: float, ref_logps_B: Tensor) -> Dataset:
    """Every unordered pair once, without a label, with a reference that all rewards tilt."""
    tilted = (ref_logps_B + reward_tilt(rewards_BM, weights_M=torch.tensor(weights_M), beta=beta)).tolist()
    return Dataset.from_list(
        [
            {
                "prompt_ids": RESPONSES[first].prompt_ids,
                "chosen_ids": RESPONSES[first].response_ids,
                "rejected_ids": RESPONSES[second].response_ids,
                "ref_chosen_logps": tilted[first],
                "ref_rejected_logps": tilted[second],
            }
            for first, second in itertools.combinations(range(len(RESPONSES)), 2)
        ]
    )


def minimise(model: TableModel, rows: Dataset, *, loss: PreferenceLoss, folder: Path) -> TableModel:
    """The population loss's minimiser: alignlab's trainer gives the loss, L-BFGS goes to the bottom."""
    engine = PreferenceTrainer(
        model=model,
        args=TrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none"),
        rows=rows,
        loss=loss,
    )
    (batch,) = engine.data_collator(list(engine.train_dataset))["forwards"]
    optimizer = torch.optim.LBFGS(
        [model.model.table], max_iter=200, tolerance_grad=1e-9, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value: Tensor = engine.compute_loss(model, batch)
        value.backward()
        return value

    optimizer.step(closure)
    return model
