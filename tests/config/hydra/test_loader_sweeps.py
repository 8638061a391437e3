"""A sweep's jobs are composed once, though Hydra asks for each when it checks them and when it runs them."""

from hydra._internal.hydra import Hydra
from hydra.types import RunMode

from alignlab.config.hydra.loader import ClosedListLoader, install
from alignlab.config.roots import config_root


def test_each_job_of_a_sweep_is_composed_once(monkeypatch):
    install()
    composed = []
    whole = ClosedListLoader._load_configuration_impl

    def counted(self, config_name, overrides, *rest, **more):
        composed.append(list(overrides))
        return whole(self, config_name, overrides, *rest, **more)

    monkeypatch.setattr(ClosedListLoader, "_load_configuration_impl", counted)
    hydra = Hydra.create_main_hydra2(task_name="alignlab", config_search_path=_search_path())
    master = hydra.compose_config("config", [], run_mode=RunMode.MULTIRUN, with_log_configuration=False)
    loader, jobs = hydra.config_loader, [["w=0.2"], ["w=0.8"]]
    before = len(composed)
    checked = [loader.load_sweep_config(master, job) for job in jobs]
    run = [loader.load_sweep_config(master, job) for job in jobs]
    assert len(composed) - before == 2
    assert all(one is other for one, other in zip(checked, run, strict=True))
    assert [str(config.w) for config in run] == ["0.2", "0.8"]
    again = loader.load_sweep_config(master, jobs[0])
    assert again == run[0]
    assert again is not run[0], "a job of another sweep gets its own"


def _search_path():
    from hydra._internal.utils import create_config_search_path

    return create_config_search_path(str(config_root("conf")))
