"""One run on a tracker: wandb, trackio or TensorBoard behind the few calls that alignlab makes."""

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignlab.config.recipe import TrackerSettings
from alignlab.errors import without_secrets

TENSORBOARD = "tensorboard"
"""Folder of a run with its event files."""


@dataclass(frozen=True)
class Rows:
    """A table."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


class TrackedRun:
    """A run that is open on a tracker; this one keeps nothing."""

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Log values of a training step."""

    def begin(self, step: int) -> None:
        """Note the step that training goes on from: later ones come again."""

    def summarise(self, values: Mapping[str, float]) -> None:
        """Keep final values."""

    def table(self, name: str, table: Rows) -> None:
        """Add a table, where the tracker has tables."""

    def scatter(self, name: str, table: Rows, *, x: str, y: str) -> None:
        """Add a plot of two columns of a table, where the tracker draws any.

        Args:
            name: of the plot.
            table: holds the columns.
            x: column.
            y: column.
        """

    def picture(self, name: str, path: Path) -> None:
        """Add a picture from a PNG file."""

    def adapter(self, folder: Path) -> None:
        """Keep an adapter, where the tracker keeps files."""

    def finish(self) -> None:
        """Close the run."""


class WandbRun(TrackedRun):
    """A run of wandb.

    Args:
        run: as `wandb.init` gave it.
    """

    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Log values of a training step."""
        self._run.log(dict(values), step=step)

    def summarise(self, values: Mapping[str, float]) -> None:
        """Keep final values in the run's summary."""
        self._run.summary.update(dict(values))

    def table(self, name: str, table: Rows) -> None:
        """Add a table."""
        self._run.log({name: self._table(table)})

    def scatter(self, name: str, table: Rows, *, x: str, y: str) -> None:
        """Add an interactive plot of two columns.

        Args:
            name: of the plot.
            table: holds the columns.
            x: column.
            y: column.
        """
        import wandb

        self._run.log({name: wandb.plot.scatter(self._table(table), x, y, title=f"{x} and {y}")})

    def picture(self, name: str, path: Path) -> None:
        """Add a picture."""
        import wandb

        self._run.log({name: wandb.Image(str(path))})

    def adapter(self, folder: Path) -> None:
        """Keep an adapter as an artifact of the run."""
        import wandb

        artifact = wandb.Artifact(f"adapter-{self._run.id}", type="adapter")
        artifact.add_dir(str(folder), policy="immutable")  # a copy for wandb would double it on the disk
        self._run.log_artifact(artifact)

    def finish(self) -> None:
        """Close the run."""
        self._run.finish()

    @staticmethod
    def _table(table: Rows) -> Any:
        import wandb

        return wandb.Table(columns=list(table.columns), data=[list(row) for row in table.rows], allow_mixed_types=True)


class TrackioRun(TrackedRun):
    """A run in trackio's local database.

    Args:
        settings: of the tracker.
        identity: what tells the run from others of its name; a resumed run goes on in the same one.
        job_type: recorded in its config.
    """

    def __init__(self, settings: TrackerSettings, identity: str, job_type: str) -> None:
        import trackio

        name = f"{settings.name} {identity}"
        last = trackio.SQLiteStorage.get_last_step(settings.project, name)
        self._last = -1 if last is None else last
        with _quiet():
            self._run = trackio.init(
                project=settings.project,
                name=name,
                group=settings.group,
                config={**without_secrets(settings.config), "job_type": job_type, "tags": settings.tags},
                resume="allow",
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Log values of a training step; one that is there comes again after a kill, with the same values."""
        if step > self._last:
            self._run.log(dict(values), step=step)

    def summarise(self, values: Mapping[str, float]) -> None:
        """Log final values, after the last step."""
        self._run.log(dict(values))

    def table(self, name: str, table: Rows) -> None:
        """Add a table."""
        import trackio

        self._run.log({name: trackio.Table(columns=list(table.columns), data=[list(row) for row in table.rows])})

    def picture(self, name: str, path: Path) -> None:
        """Add a picture."""
        import trackio

        self._run.log({name: trackio.Image(str(path))})

    def finish(self) -> None:
        """Write what is not written yet."""
        import trackio

        with _quiet():
            self._run.finish()
        trackio.context_vars.current_run.set(None)  # trackio would close it again at the next one's start


class TensorboardRun(TrackedRun):
    """Event files in the run folder, of scalars and pictures: `tensorboard --logdir runs`.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / TENSORBOARD
        self._writer: Any = None

    def begin(self, step: int) -> None:
        """Hide what a killed run wrote past the checkpoint."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self._folder), purge_step=step + 1 if step else None)

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Write every number of a step."""
        for name, value in values.items():
            if isinstance(value, int | float):
                self._opened().add_scalar(name, value, step)

    def summarise(self, values: Mapping[str, float]) -> None:
        """Write final values as step 0 of scalars of their own."""
        for name, value in values.items():
            self._opened().add_scalar(name, value, 0)

    def picture(self, name: str, path: Path) -> None:
        """Write a picture."""
        from matplotlib.image import imread

        self._opened().add_image(name, imread(path)[:, :, :3], 0, dataformats="HWC")

    def finish(self) -> None:
        """Close the files."""
        if self._writer is not None:
            self._writer.close()

    def _opened(self) -> Any:
        if self._writer is None:
            self.begin(0)
        return self._writer


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what trackio prints about itself."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
