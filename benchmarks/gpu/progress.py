"""Record finished and failed steps in a JSON file, which is written after each step."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.gpu.setup import Numbers
from cifar import UserError, files

Key = tuple[str, str]  # a part and a step


class TimeUpError(Exception):
    """The time of this call is up."""


class Progress:
    """The results of one machine, kept from one call to the next."""

    def __init__(self, path: Path, machine: str) -> None:
        self.path = path
        self.content: dict[str, Any] = {"machine": machine, "done": {}, "failed": {}}
        if path.exists():
            self.content = files.read_json(path)
        if self.content["machine"] != machine:
            problem = f"the folder has results of {self.content['machine']}"
            raise UserError(f"{problem} ({path}): choose another folder with --out")

    def done(self, part: str) -> dict[str, Numbers]:
        """Maps the name of each finished step of a part to its numbers."""
        return self.content["done"].get(part, {})

    def failed(self, part: str) -> dict[str, str]:
        """Maps the name of each step of a part that failed when last tried to its error."""
        return self.content["failed"].get(part, {})

    def failures(self) -> set[Key]:
        return {(part, step) for part in self.content["failed"] for step in self.failed(part)}

    def finish(self, part: str, step: str, numbers: Numbers) -> None:
        self.content["done"].setdefault(part, {})[step] = numbers
        self.failed(part).pop(step, None)
        files.write_json(self.path, self.content)

    def fail(self, part: str, step: str, message: str) -> None:
        self.content["failed"].setdefault(part, {})[step] = message
        files.write_json(self.path, self.content)


@contextmanager
def time_limit(minutes: float) -> Iterator[None]:
    """Raise TimeUpError when the minutes are over; a command that is running is killed."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeUpError

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
