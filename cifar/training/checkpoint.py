"""State that outlives an interrupted training.

A run is a folder, `.checkpoints/<key>/`, with one file per network of its ensemble. The key hashes
everything that the result depends on, so that no other run takes it up. Damage is noticed.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from cifar import files
from cifar.model import Provenance

KEPT_RUNS = 5  # interrupted runs whose checkpoints are kept, the latest ones
KEPT_DAYS = 30  # after which a checkpoint goes
PROVENANCE = "provenance.json"  # what a run's checkpoints depend on
SAME_TRAINING = ("parameters", "data", "network_file")
MACHINE = ("device", "threads", "versions")
# Bytes of disk for each parameter: two checkpoints (one replaces the other) of at most five copies
# (weights, two of Adam, averaged, best), the model, and its copy in DVC's cache.
DISK = 4 * (2 * 5 + 2)
POLL = 1.0  # seconds between two looks at a lock
WAITING = 10.0  # seconds after which a waiting process has given up


class Checkpoints:
    """The checkpoints of one run.

    Args:
        root: the folder of all runs.
        provenance: what the result depends on, with
        code: Git's name of each file of code.
    """

    def __init__(self, root: Path, provenance: Provenance, code: dict[str, str]) -> None:
        self.root = root
        self.provenance = asdict(provenance)
        # Of the processes only their threads count, however these are divided.
        self.key = key({"provenance": asdict(replace(provenance, processes=1)), "code": code})
        self.folder = root / self.key
        self.lock = root / f"{self.key}.lock"

    def save(self, member: int, state: dict[str, Any]) -> None:
        """Write the state of one network of the ensemble, behind its sha256 sum."""
        files.write_bytes(self.folder / f"{member}.pt", dump(state))
        (self.folder / PROVENANCE).write_text(json.dumps(self.provenance))

    def load(self, member: int) -> dict[str, Any] | None:
        """The state of one network; nothing if there is none or it is damaged."""
        return load(self.folder / f"{member}.pt")

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the locks of the run and of the current folder; see `exclusive`.

        That of the run comes first, so that a second training of it is known to wait for it.
        """
        with exclusive(self.lock), exclusive(Path(".checkpoints/folder.lock")):
            prune(self.root, keep=self.key)
            if difference := self.find_difference():
                print(f"note: {difference}: this training starts from the beginning", flush=True)
            yield

    def find_difference(self) -> str:
        """Why the interrupted training of the same parameters and data, if any, is not resumed.

        On a cluster a job may come back on another kind of node.
        """
        if self.folder.exists():
            return ""
        for path in sorted(self.root.glob(f"*/{PROVENANCE}")):
            try:
                other = json.loads(path.read_text())
                if any(other[name] != self.provenance[name] for name in SAME_TRAINING):
                    continue
                machines = [(name, other[name], self.provenance[name]) for name in MACHINE]
            except (OSError, ValueError, LookupError, TypeError):
                continue  # it only serves this note
            differing = [f"{name} {a} instead of {b}" for name, a, b in machines if a != b]
            return f"the checkpoint of {', '.join(differing) or 'other code'} cannot be used here"
        return ""

    def delete(self) -> None:
        """Remove the run's checkpoints, unless another process waits for them or uses them."""
        with contextlib.suppress(Timeout), FileLock(self.lock).acquire(timeout=0):
            if not waited_for(self.lock):
                shutil.rmtree(self.folder, ignore_errors=True)


def key(content: dict[str, Any]) -> str:
    """32 hex digits for a run."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def dump(state: dict[str, Any]) -> bytes:
    """The state behind its sha256 sum."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue()


def load(path: Path) -> dict[str, Any] | None:
    """The state that `dump` made; nothing if there is none or a bit of it has changed."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        print(f"note: {path} is damaged and is not used: this training starts again")
        return None
    return torch.load(io.BytesIO(content[32:]), weights_only=True, map_location="cpu")


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock at `path`, once no other process holds it.

    When `dvc` alone is killed its training lives on, and must not meet a second one. Two queued
    experiments may share one training: the second waits and takes up what the first has finished.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    owner = path.with_suffix(".owner")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        wait_for(lock, path, owner)
    try:
        files.write_bytes(owner, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def wait_for(lock: FileLock, path: Path, owner: Path) -> None:
    """Wait for a lock, and let its holder know."""
    try:
        holder = owner.read_text()
    except FileNotFoundError:  # it has just ended, or is about to say its name
        holder = "another process"
    print(
        f"waiting for the training by {holder} ({path}); Ctrl-C gives up. "
        "If that process is gone, delete the lock",
        flush=True,
    )
    while True:
        path.with_suffix(".waiting").touch()
        try:
            lock.acquire(timeout=POLL)
        except Timeout:
            continue
        path.with_suffix(".waiting").unlink(missing_ok=True)
        return


def waited_for(path: Path) -> bool:
    """Whether a process waits for this lock."""
    mark = path.with_suffix(".waiting")
    try:
        return time.time() - mark.stat().st_mtime < WAITING
    except FileNotFoundError:
        return False


def prune(root: Path, keep: str) -> None:
    """Remove the checkpoints of abandoned runs: the oldest beyond KEPT_RUNS, and those too old.

    Args:
        keep: the key of a run that stays.
    """
    changed = {}
    for folder in root.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process has just removed it
            if folder.is_dir() and folder.name != keep:
                changed[folder] = folder.stat().st_mtime
    latest_first = sorted(changed, key=lambda folder: changed[folder], reverse=True)
    for number, folder in enumerate(latest_first):
        age = time.time() - changed[folder]
        if number < KEPT_RUNS and age < KEPT_DAYS * 86400:
            continue
        lock = FileLock(root / f"{folder.name}.lock")
        with contextlib.suppress(Timeout), lock.acquire(timeout=0):  # otherwise it is in use
            shutil.rmtree(folder, ignore_errors=True)


def check_space(root: Path, parameters: int) -> None:
    """Ask for the disk that a training of so many parameters needs, before it begins.

    Raises:
        UserError: there is less.
    """
    files.check_space(root, needed=DISK * parameters)
