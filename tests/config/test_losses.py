"""Which loss takes which settings is refused in one line, before anything is loaded."""

import pytest

from alignlab.config.names import LOSSES, PER_TOKEN_LOSSES, SMOOTHED_LOSSES
from alignlab.errors import ConfigError


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_that_divide_by_length_are_for_dpo_alone(run_of, loss):
    given = [f"algorithm.loss_type={loss}", f"algorithm.label_smoothing={0.1 if loss in SMOOTHED_LOSSES else 0}"]
    assert run_of("algorithm=dpo", *given).algorithm.loss_type == loss
    if loss not in PER_TOKEN_LOSSES:
        assert run_of("w=0.5", *given).algorithm.loss_type == loss
        return
    with pytest.raises(ConfigError, match=f"algorithm.loss_type={loss}: .*choose algorithm=dpo") as error:
        run_of("w=0.5", *given)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("algorithm", ["dpo", "modpo"])
@pytest.mark.parametrize("loss", ["sigmoid", "hinge", "discopop"])
def test_label_smoothing_that_would_do_nothing_is_refused(run_of, algorithm, loss):
    given = [f"algorithm={algorithm}", f"algorithm.loss_type={loss}"]
    assert run_of(*given).algorithm.label_smoothing == 0
    with pytest.raises(ConfigError, match=r"algorithm.label_smoothing=0.1: .*algorithm.loss_type=robust"):
        run_of(*given, "algorithm.label_smoothing=0.1")


@pytest.mark.parametrize("loss", SMOOTHED_LOSSES)
def test_smoothed_losses_need_it(run_of, loss):
    with pytest.raises(ConfigError, match="must be > 0"):
        run_of(f"algorithm.loss_type={loss}")
    assert run_of(f"algorithm.loss_type={loss}", "algorithm.label_smoothing=0.1").algorithm.label_smoothing == 0.1
