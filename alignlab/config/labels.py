"""A labelled data set beside the run's own, by its choice in conf/dataset: what a probe is fitted to."""

from typing import cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alignlab.config.roots import conf_values, config_root
from alignlab.config.schema.dataset import DATASET_VARIANTS, FileConfig, dataset_variant
from alignlab.errors import ConfigError, require_one_of


def labelled_rows(key: str, choice: str, path: str | None, max_rows: int | None) -> FileConfig:
    """The data set of a choice, with its own defaults.

    Args:
        key: what the choice stands under, e.g. `scorers.safer.labels`.
        choice: a file of conf/dataset.
        path: a file or folder in its columns; None reads the hub.
        max_rows: use at most this many rows; None for all.

    Raises:
        ConfigError: if there is no such choice, or its rows are not read from files.
    """
    folder = config_root("conf") / "dataset"
    require_one_of(key, choice, [file.stem for file in sorted(folder.glob("[!_]*.yaml"))])
    plain = {**conf_values("dataset", "_file"), **conf_values("dataset", choice)}
    kind = DATASET_VARIANTS[dataset_variant(plain["kind"])]
    if not issubclass(kind, FileConfig):
        raise ConfigError(f"{key}={choice}: must be a data set that is read from a file or the hub")
    try:
        given = OmegaConf.merge(OmegaConf.structured(kind), plain, {"path": path, "max_rows": max_rows})
        return cast(FileConfig, OmegaConf.to_object(given))
    except (OmegaConfBaseException, ConfigError) as error:
        raise ConfigError(f"{key}={choice}: {str(error).splitlines()[0]}") from None
