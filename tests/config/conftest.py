"""Composing a run as the command line does."""

import copy

import pytest

from alignlab.config.hydra.compose import composing, read_command, register, run_config
from alignlab.config.hydra.messages import explain
from alignlab.config.hydra.overrides import admit_new_keys
from alignlab.config.objectives import objectives_of

register()
_composed = {}
"""What was composed before: composing takes a tenth of a second, and most tests start from the same few runs."""


@pytest.fixture
def runs_of():
    """(overrides, ...) -> the RunConfigs that they mean; errors read as the command line prints them."""

    def runs(*given, name="config", multirun=False, config_dir=None):
        overrides = admit_new_keys(given)
        with composing(config_dir):
            try:
                jobs = read_command(name, overrides, multirun=multirun).jobs()
                configs = [run_config(job) for job in jobs]
                for config in configs:
                    objectives_of(config)
                return configs
            except Exception as error:
                raise explain(error, name, overrides) from None

    return runs


@pytest.fixture
def run_of(runs_of):
    """Overrides -> the one RunConfig that they mean."""

    def run(*overrides):
        if overrides not in _composed:
            (_composed[overrides],) = runs_of(*overrides)
        return copy.deepcopy(_composed[overrides])

    return run
