"""What a training shows while it runs: a bar with loss and validation error, a line an epoch, an events file."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from inference.eventlog import EventLog

if TYPE_CHECKING:
    from inference.checkpoint import Epoch
    from inference.training import Step


class Display:
    """A bar on standard error and scalars for TensorBoard in `folder`; nothing of both if `silent`."""

    def __init__(self, folder: Path, epochs: int, *, silent: bool) -> None:
        self._console = Console(stderr=True, quiet=silent)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._bar = Progress(*columns, console=self._console, transient=True)
        self._events = None if silent else EventLog(folder, time.time())
        self._epochs = epochs
        self._task = self._bar.add_task("Training", total=None, note="")
        self._error = ""

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._bar.stop()
        if self._events is not None:
            self._events.close()

    def step(self, step: Step) -> None:
        """A step was done."""
        done = (step.epoch - 1) * step.of + step.number
        note = f"epoch {step.epoch}/{self._epochs}  loss {step.loss:.3f}{self._error}"
        self._bar.update(self._task, total=step.of * self._epochs, completed=done, note=note)
        if self._events is not None:
            self._events.scalars(done, {"loss/step": step.loss}, time.time())

    def epoch(self, epoch: Epoch) -> None:
        """An epoch ended."""
        self._error = f"  validation MAE {epoch.validation_mae_mmhg:.2f} mmHg"
        self._console.print(f"epoch {epoch.number}: loss {epoch.loss:.3f}{self._error}", highlight=False)
        if self._events is not None:
            values = {"loss/epoch": epoch.loss, "validation/mae_mmhg": epoch.validation_mae_mmhg}
            self._events.scalars(epoch.number, values, time.time())
