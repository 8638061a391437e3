"""Composing a run as the command line does."""

import pytest
from alignlab.config.compose import composing, read_command, register, run_config
from alignlab.config.messages import explain

register()


@pytest.fixture
def runs_of(monkeypatch):
    """(overrides, ...) -> the RunConfigs that they mean; errors read as the command line prints them."""
    monkeypatch.setenv("ALIGNLAB_CACHE", "/nowhere/cache")

    def runs(*overrides, name="config", multirun=False, config_dir=None):
        with composing(config_dir):
            try:
                return [run_config(job) for job in read_command(name, overrides, multirun=multirun).jobs()]
            except Exception as error:
                raise explain(error, name, overrides) from None

    return runs


@pytest.fixture
def run_of(runs_of):
    """Overrides -> the one RunConfig that they mean."""

    def run(*overrides):
        (config,) = runs_of(*overrides)
        return config

    return run
