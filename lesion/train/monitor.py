"""What is seen of a fit: a line of progress, and TensorBoard's scalars."""

import time
from pathlib import Path

import jax
from tensorboardX import SummaryWriter

from lesion.progress import Line, duration


class Monitor:
    """Shows one fit. An I/O object; silent on all machines but the first."""

    def __init__(self, title: str, folder: Path | None, num_epochs: int) -> None:
        """Takes what begins the line, the folder that gets the scalars, and how many epochs are to come."""
        self._title, self._num_epochs, self._folder = title, num_epochs, folder
        self._line, self._start, self._done, self._images = Line(), time.monotonic(), 0.0, 0
        self._writer: SummaryWriter | None = None
        self._first = jax.process_index() == 0

    def start(self, epochs: float) -> None:
        """Begins after `epochs` that were trained before; scalars of later ones are dropped."""
        self._start, self._done = time.monotonic(), -epochs
        if self._first and self._folder is not None:
            self._writer = SummaryWriter(str(self._folder), purge_step=int(epochs) + 1)

    def step(self, epoch: int, step: int, num_steps: int, images: int, loss: float) -> None:
        """Shows a step that `images` slices and copies were trained on in."""
        self._images += images
        if self._first:
            where = f"epoch {epoch + 1} of {self._num_epochs}, step {step + 1} of {num_steps}"
            self._line.show(f"{self._title}, {where}: loss {loss:.3f}, {self._speed(epoch + (step + 1) / num_steps)}")

    def epoch(self, epoch: int, scalars: dict[str, float]) -> None:
        """Shows an epoch, counted from 0, and writes its scalars."""
        if not self._first:
            return
        if self._writer is not None:
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, epoch + 1)
            self._writer.flush()
        text = f"{self._title}, epoch {epoch + 1} of {self._num_epochs}: {_text(scalars)}, {self._speed(epoch + 1)}"
        self._line.show(text, stays=True)

    def replay(self, history: list[dict[str, float]]) -> None:
        """Shows a whole fit that was trained in one go."""
        if not self._first:
            return
        with SummaryWriter(str(self._folder), purge_step=1) as writer:
            for epoch, scalars in enumerate(history):
                for name, value in scalars.items():
                    writer.add_scalar(name, value, epoch + 1)
        self._line.show(f"{self._title}: {len(history)} epochs, {_text(history[-1])}", stays=True)

    def rate(self) -> float:
        """Returns slices and copies a second since training began here."""
        return self._images / max(time.monotonic() - self._start, 1e-9)

    def close(self) -> None:
        """Closes the file of scalars."""
        if self._writer is not None:
            self._writer.close()

    def _speed(self, epochs: float) -> str:
        spent, here = time.monotonic() - self._start, epochs + self._done
        left = spent / here * (self._num_epochs - epochs) if here > 0 else 0.0
        return f"{self.rate():.1f} images/s, {duration(left)} left of this fold"


def _text(scalars: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in scalars.items())
