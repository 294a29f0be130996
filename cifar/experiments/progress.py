"""The epochs of a running training, from the JSON lines in runs/NAME/epochs.jsonl."""

import json
import os
from pathlib import Path
from typing import Any


class Epochs:
    """A reader of rows that another process is still writing; the file may not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position = 0

    def new(self) -> list[dict[str, Any]]:
        """The rows added since the last call, without a line that is still being written."""
        try:
            with self.path.open("rb") as handle:
                if handle.seek(0, os.SEEK_END) < self.position:  # a new file, after `make clean`
                    self.position = 0
                handle.seek(self.position)
                lines, newline, _ = handle.read().rpartition(b"\n")
        except FileNotFoundError:
            return []
        self.position += len(lines) + len(newline)
        return [json.loads(line) for line in lines.splitlines()]


def path_of(name: str) -> Path:
    """The file to which the training of the experiment `name` writes its epochs."""
    return Path("runs", name, "epochs.jsonl")
