"""What a fit shows: a line of progress, and scalars for TensorBoard."""

import glob
import socket
import time
from pathlib import Path

import jax
from tensorboardX import SummaryWriter

from lesion.progress import Line, duration
from lesion.workers import has_semaphores


class Monitor:
    """Shows the progress of one fit. An I/O object, silent in all processes but the first."""

    def __init__(self, title: str, folder: Path | None, num_epochs: int) -> None:
        """Takes the beginning of each line, TensorBoard's folder (None: no scalars) and the fit's number of epochs."""
        self._title, self._num_epochs, self._folder = title, num_epochs, folder
        self._line, self._start, self._epochs_before, self._images = Line(), time.monotonic(), 0.0, 0
        self._writer: SummaryWriter | None = None
        self._first = jax.process_index() == 0

    def start(self, epochs: float) -> None:
        """Starts the clock after `epochs` trained in an earlier process; deletes the scalars of later epochs."""
        self._start, self._epochs_before = time.monotonic(), epochs
        if not self._first or self._folder is None:
            return
        if not has_semaphores():  # of which tensorboardX's queue is made
            self._line.show(f"{self._title}: no scalars for TensorBoard, they need /dev/shm", stays=True)
        else:
            self._writer = SummaryWriter(str(self._folder), purge_step=int(epochs) + 1)
            # tensorboardX calls the file after this machine, which a run that is shared should not name.
            host = socket.gethostname()
            for path in self._folder.glob(f"events.out.tfevents.*.{glob.escape(host)}"):
                path.rename(path.with_name(path.name.removesuffix(f".{host}")))

    def step(self, epoch: int, step: int, num_steps: int, images: int, loss: float) -> None:
        """Shows a step that trained on `images` slices and copies; epoch and step count from 0."""
        self._images += images
        if self._first:
            position = f"epoch {epoch + 1} of {self._num_epochs}, step {step + 1} of {num_steps}"
            speed = self._speed(epoch + (step + 1) / num_steps)
            self._line.show(f"{self._title}, {position}: loss {loss:.3f}, {speed}")

    def epoch(self, epoch: int, scalars: dict[str, float]) -> None:
        """Shows an epoch, counted from 0, and writes its scalars."""
        if self._first:
            self._write(epoch, scalars)
            text = f"{self._title}, epoch {epoch + 1} of {self._num_epochs}: {_text(scalars)}, {self._speed(epoch + 1)}"
            self._line.show(text, stays=True)

    def replay(self, history: list[dict[str, float]]) -> None:
        """Shows a fit that is finished already, from its scalars of every epoch."""
        if self._first:
            self.start(0)
            for epoch, scalars in enumerate(history):
                self._write(epoch, scalars)
            self.close()
            self._line.show(f"{self._title}: {len(history)} epochs, {_text(history[-1])}", stays=True)

    def close(self) -> None:
        """Closes the file of scalars."""
        if self._writer is not None:
            self._writer.close()

    def _write(self, epoch: int, scalars: dict[str, float]) -> None:
        if self._writer is not None:
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, epoch + 1)
            self._writer.flush()

    def _speed(self, epochs: float) -> str:
        """Returns slices and copies a second, and the time left, after `epochs`; as trained in this process."""
        spent, trained = time.monotonic() - self._start, epochs - self._epochs_before
        left = spent / trained * (self._num_epochs - epochs) if trained > 0 else 0.0
        return f"{self._images / max(spent, 1e-9):.1f} images/s, {duration(left)} left of this fold"


def _text(scalars: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in scalars.items())
