"""Callbacks of every training: progress, stop on numbers that are not finite, stop on signals; what divergence is."""

import itertools
import math
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import TrainerCallback

from alignlab.runs.activity import Count, activity
from alignlab.runs.progress import progress
from alignlab.runs.signals import StopRequest
from alignlab.training.sharding import unsharded

MOST_NAMED = 5
"""Rows that an error names."""


class ProgressCallback(TrainerCallback):  # type: ignore[misc]
    """Show how many optimizer steps are done.

    Args:
        bars: where the bar is closed, however training ends.
    """

    def __init__(self, bars: ExitStack) -> None:
        self.bars, self.bar, self.seen = bars, Count("training", 0), 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Only now the number of steps is known."""
        self.bar = self.bars.enter_context(progress("training", state.max_steps))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Advance to the global step; a resumed run starts where it stopped."""
        self.bar.advance(state.global_step - self.seen)
        self.seen = state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Keep the latest metrics for a sweep's table."""
        activity.log(logs or {})


class StopOnSignal(TrainerCallback):  # type: ignore[misc]
    """Save a checkpoint and stop after the step in which a signal came.

    Several processes all stop one step later: a step's end starts an all-reduce of the signal's number, and the next
    step's end reads its result, so that no step waits for it.
    """

    def __init__(self, request: StopRequest) -> None:
        self.request = request
        self._told: Tensor | None = None
        """Greatest number of a signal that any process had heard at the end of the last step."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Comes after the optimizer's step and before transformers saves."""
        if args.world_size > 1:
            heard, self._told = self._told, torch.tensor(self.request.number or 0, device=args.device)
            torch.distributed.all_reduce(self._told, torch.distributed.ReduceOp.MAX)
            stop = 0 if heard is None else int(heard)
            if stop:
                self.request.number = stop
        else:
            stop = self.request.number or 0
        if stop:
            control.should_save = control.should_training_stop = True


class StepLosses(Protocol):
    """A trainer that keeps ids and losses of the rows of its last step, forward by forward."""

    step_losses: Sequence[tuple[Sequence[str], Tensor]]


class StopOnNonFinite(TrainerCallback):  # type: ignore[misc]
    """Stop at a loss or gradient that is not finite; transformers would train on.

    On a CPU before the optimizer's step. On a GPU, which would have to be waited for at every step, before the next log
    line and before the next checkpoint is valid.

    Args:
        at_once: look at every step.
        trainer: names the rows of a step; None where the trainer keeps no losses of rows.

    Raises:
        FloatingPointError: naming the optimizer step and rows.
    """

    def __init__(self, *, at_once: bool = True, trainer: StepLosses | None = None) -> None:
        self.at_once, self.trainer = at_once, trainer
        self._seen: list[tuple[int, Tensor, Sequence[tuple[Sequence[str], Tensor]]]] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        """Note the summed and clipped gradient's norm; a NaN loss has made it NaN too."""
        trained = itertools.chain.from_iterable(group["params"] for group in optimizer.param_groups)
        gradients = [weights.grad for weights in trained if weights.grad is not None]
        losses = self.trainer.step_losses if self.trainer is not None else ()
        if gradients:
            norm = unsharded(torch.nn.utils.get_total_norm(gradients))
            self._seen.append((state.global_step + 1, norm + sum(loss_P.sum() for _, loss_P in losses), losses))
        if self.at_once:
            self._look()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """A loss can be infinite where its gradient is not."""
        self._look()
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise FloatingPointError(f"step {state.global_step}: the loss is {loss}")

    def on_save(self, *_: Any, **__: Any) -> None:
        """Comes before the checkpoint has its manifest."""
        self._look()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """The last steps have no log line of their own."""
        self._look()

    def _look(self) -> None:
        seen, self._seen = self._seen, []
        for step, total, losses in seen:
            if not torch.isfinite(total):
                raise FloatingPointError(f"step {step}: loss or gradient is not finite{_rows(losses)}")


def _rows(losses: Sequence[tuple[Sequence[str], Tensor]]) -> str:
    """The rows of a step whose loss is not finite; all of them where only the gradient is not."""
    every = [name for ids, _ in losses for name in ids]
    fine = [is_fine for _, loss_P in losses for is_fine in loss_P.isfinite().tolist()]
    bad = [name for name, is_fine in zip(every, fine, strict=True) if not is_fine]
    named = bad or every
    if not named:
        return ""
    more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
    return f"; {'rows' if bad else 'rows of the step'}: {', '.join(named[:MOST_NAMED])}{more}"


def diverged(loss: float, untrained: float, *, uniform_loss: float = math.inf) -> str | None:
    """What is wrong with a loss at the end of training, or None; all are means, in nats.

    Training should lower the loss; one that ends far above the untrained model's has lost what the model knew. The
    bound, three times the untrained loss and 1.5 nats, leaves room for a few unlucky rows; where the loss is a token's
    (sft), a model that began below a uniform guess must also stay below it.

    Args:
        loss: at the end.
        untrained: before training.
        uniform_loss: of a uniform guess over the vocabulary.
    """
    bound = min(3 * untrained + 1.5, max(0.95 * uniform_loss, 1.2 * untrained))
    if loss <= bound:
        return None
    return f"the loss ended at {loss:.3g}, where the untrained model has {untrained:.3g}"
