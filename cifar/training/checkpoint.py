"""Checkpoints, from which an interrupted training resumes.

Each run has a folder, `.checkpoints/<key>/`, with one file per network of its ensemble. The key is
a hash of everything that the result depends on, so that no other run resumes from it. Checksums
reveal damage.
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

KEPT_RUNS = 5  # the latest interrupted runs keep their checkpoints
KEPT_DAYS = 30  # older checkpoints are removed
PROVENANCE = "provenance.json"  # what a run's checkpoints depend on
SAME_TRAINING = ("parameters", "data", "network_file")
MACHINE = ("device", "threads", "versions")
# Bytes of disk for each parameter: two checkpoints (one replaces the other) of at most five copies
# (weights, two of Adam, averaged, best), the model, and its copy in DVC's cache.
DISK = 4 * (2 * 5 + 2)
POLL = 1.0  # seconds between two attempts to acquire a lock
WAITING = 10.0  # seconds after which the mark of a waiting process no longer counts


class Checkpoints:
    """The checkpoints of one run.

    Args:
        root: the folder of all runs.
        provenance: what the result depends on, apart from the code.
        code: maps the path of each file of code to Git's hash of its content.
    """

    def __init__(self, root: Path, provenance: Provenance, code: dict[str, str]) -> None:
        self.root = root
        self.provenance = asdict(provenance)
        # The total number of threads matters, not how many processes divide them.
        self.key = key({"provenance": asdict(replace(provenance, processes=1)), "code": code})
        self.folder = root / self.key
        self.lock = root / f"{self.key}.lock"

    def save(self, member: int, state: dict[str, Any]) -> None:
        """Write the state of one network of the ensemble, preceded by its sha256 sum."""
        files.write_bytes(self.folder / f"{member}.pt", dump(state))
        (self.folder / PROVENANCE).write_text(json.dumps(self.provenance))

    def load(self, member: int) -> dict[str, Any] | None:
        """The saved state of one network; None if it is missing or damaged."""
        return load(self.folder / f"{member}.pt")

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the locks of the run and of the current folder; see `exclusive`.

        The run's lock is acquired first, so that a second training of the same run waits for that
        one, which `delete` checks.
        """
        with exclusive(self.lock), exclusive(Path(".checkpoints/folder.lock")):
            prune(self.root, keep=self.key)
            if difference := self.find_difference():
                print(f"note: {difference}: this training starts from the beginning", flush=True)
            yield

    def find_difference(self) -> str:
        """Why a checkpoint of the same parameters and data cannot be used; empty if there is none.

        A cluster, for example, may restart a job on another kind of node.
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
                continue  # unreadable: then there is no note
            differing = [f"{name} {a} instead of {b}" for name, a, b in machines if a != b]
            return f"a checkpoint made with {', '.join(differing) or 'other code'} cannot be used"
        return ""

    def delete(self) -> None:
        """Remove the run's checkpoints, unless another process uses them or waits for them."""
        with contextlib.suppress(Timeout), FileLock(self.lock).acquire(timeout=0):
            if not waited_for(self.lock):
                shutil.rmtree(self.folder, ignore_errors=True)


def key(content: dict[str, Any]) -> str:
    """The key of a run: a hash of its content, as 32 hex digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def dump(state: dict[str, Any]) -> bytes:
    """Serialise a state, preceded by its sha256 sum."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue()


def load(path: Path) -> dict[str, Any] | None:
    """Read a state that `dump` serialised; None if the file is missing or damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        print(f"note: {path} is damaged and is not used: this training starts from the beginning")
        return None
    return torch.load(io.BytesIO(content[32:]), weights_only=True, map_location="cpu")


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock at `path`, after waiting until no other process holds it.

    If only `dvc` is killed, its training continues, and a second one must not run beside it. Two
    queued experiments may need the same training: the second waits and uses the first one's result.
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
    """Wait for a lock, and leave a mark for its holder that a process is waiting."""
    try:
        holder = owner.read_text()
    except FileNotFoundError:  # it has just ended, or has not written its name yet
        holder = "another process"
    print(
        f"waiting for the training by {holder} ({path}): this one continues once that process has "
        "ended; Ctrl-C gives up. If it ended already, see docs/troubleshooting.md",
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
    """Whether another process is waiting for this lock."""
    mark = path.with_suffix(".waiting")
    try:
        return time.time() - mark.stat().st_mtime < WAITING
    except FileNotFoundError:
        return False


def prune(root: Path, keep: str) -> None:
    """Remove the checkpoints of abandoned runs: beyond the latest KEPT_RUNS, or over KEPT_DAYS old.

    Args:
        keep: key of a run whose checkpoints stay.
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
    """Check that the disk has enough space to train this many parameters.

    Raises:
        UserError: there is not enough.
    """
    files.check_space(root, needed=DISK * parameters)
