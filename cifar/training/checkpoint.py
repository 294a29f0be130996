"""State that outlives an interrupted training: noticed when damaged, used only by the run it belongs to."""

import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from cifar import UserError


def key(facts: dict[str, Any]) -> str:
    """The name of a run: 32 hex digits of `facts`, everything that its result depends on."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def dump(state: dict[str, Any]) -> bytes:
    """The state behind the sha256 sum of it."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue()


def load(path: Path) -> dict[str, Any] | None:
    """The state that `dump` made, or nothing where there is none or where a bit of it has changed."""
    if not path.exists():
        return None
    content = path.read_bytes()
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        print(f"note: {path} is damaged and is not used: training starts anew")
        return None
    return torch.load(io.BytesIO(content[32:]), weights_only=True, map_location="cpu")


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock at `path`. When `dvc` alone is killed its training lives on, and must not meet a second one.

    Raises:
        UserError: somebody else holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(path).acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"another training of this experiment or in this folder runs ({path}): wait for it or stop it"
        ) from None
    with held:
        yield
