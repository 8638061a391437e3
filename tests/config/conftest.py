"""Composing a run as the command line does."""

import pytest
from alignlab.config.compose import composing, read_command, register, run_config
from alignlab.config.identity import objectives_of
from alignlab.config.messages import explain
from alignlab.config.overrides import admit_new_rewards

register()


@pytest.fixture
def runs_of(monkeypatch):
    """(overrides, ...) -> the RunConfigs that they mean; errors read as the command line prints them."""
    monkeypatch.setenv("ALIGNLAB_CACHE", "/nowhere/cache")

    def runs(*given, name="config", multirun=False, config_dir=None):
        overrides = admit_new_rewards(given)
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
        (config,) = runs_of(*overrides)
        return config

    return run
