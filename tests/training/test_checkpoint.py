"""Checkpoints: damage is detected, other runs are not resumed, and one process runs at a time."""

import hashlib
import io
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from sample import PROVENANCE

from cifar.training import checkpoint
from cifar.training.checkpoint import Checkpoints

ROOT = Path(__file__).parents[2]
CODE = {"cifar/training/trainer.py": "1" * 40}
STATE = {
    "weights": torch.arange(6.0).reshape(2, 3),
    "epoch": 3,
    "history": [{"lr": 0.1}],
    "average": None,
}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "state"
    path.write_bytes(checkpoint.dump(STATE))
    return path


@pytest.fixture
def checkpoints(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Checkpoints(tmp_path / ".checkpoints", PROVENANCE, CODE)


def test_a_state_comes_back(saved):
    """A state is loaded bit for bit as it was dumped; without a file there is none."""
    loaded = checkpoint.load(saved)
    assert torch.equal(loaded.pop("weights"), STATE["weights"])
    assert loaded == {key: value for key, value in STATE.items() if key != "weights"}
    assert checkpoint.load(saved.with_name("none")) is None


@pytest.mark.fault
def test_a_checkpoint_that_another_process_removes_is_none(saved, monkeypatch):
    """The file may vanish between a check and its reading, so it is read without a check."""
    saved.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "exists", lambda _: True)
        assert checkpoint.load(saved) is None


def test_the_same_state_gives_the_same_bytes(saved):
    """Dumping a state twice gives the same bytes."""
    assert checkpoint.dump(STATE) == saved.read_bytes()


def test_any_flipped_bit_is_noticed(saved, capsys):
    """A state with a single changed bit, in its sum or its content, is not used; a note says so."""
    content = saved.read_bytes()
    note = f"note: {saved} is damaged and is not used: this training starts from the beginning\n"
    for position in [0, 31, 32, *range(33, len(content), 97), len(content) - 1]:
        for bit in (1, 128):
            damaged = bytearray(content)
            damaged[position] ^= bit
            saved.write_bytes(damaged)
            assert checkpoint.load(saved) is None
            assert capsys.readouterr().out == note


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 500, -1])
def test_a_cut_file_is_noticed(saved, length):
    """A file that is empty or was cut off anywhere is not used."""
    saved.write_bytes(saved.read_bytes()[:length])
    assert checkpoint.load(saved) is None


class Code:
    """A pickle that would run code."""

    def __reduce__(self):
        return exec, ("raise SystemExit('the file ran code')",)


def test_a_state_is_data_only(saved):
    """Code in a file with a valid sum is not run."""
    buffer = io.BytesIO()
    torch.save({"epoch": Code()}, buffer)
    saved.write_bytes(hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue())
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        checkpoint.load(saved)


def test_each_network_has_its_own_file(checkpoints):
    """Saving one network of an ensemble writes one file and leaves the others alone."""
    for member in range(3):
        checkpoints.save(member, STATE | {"epoch": member})
    before = (checkpoints.folder / "0.pt").stat().st_mtime_ns
    checkpoints.save(2, STATE | {"epoch": 9})
    names = sorted(path.name for path in checkpoints.folder.iterdir())
    assert names == ["0.pt", "1.pt", "2.pt", checkpoint.PROVENANCE]
    assert [checkpoints.load(member)["epoch"] for member in range(3)] == [0, 1, 9]
    assert (checkpoints.folder / "0.pt").stat().st_mtime_ns == before
    assert checkpoints.load(3) is None


def test_the_key_changes_with_everything(tmp_path):
    """Another parameter, data, device, number of threads, version or code is another run."""
    changes = [
        {"parameters": {"seed": 1}},
        {"data": {}},
        {"network_file": "2" * 40},
        {"device": "cuda"},
        {"threads": 2},
        {"versions": {}},
    ]
    keys = [Checkpoints(tmp_path, replace(PROVENANCE, **change), CODE).key for change in changes]
    keys += [Checkpoints(tmp_path, PROVENANCE, code).key for code in (CODE, {}, {"a.py": "1"})]
    assert len(set(keys)) == len(changes) + 3
    assert all(len(key) == 32 and set(key) <= set("0123456789abcdef") for key in keys)


def test_a_run_may_be_divided_among_processes(tmp_path):
    """With the same total of threads, another number of processes resumes the same run."""
    two = Checkpoints(tmp_path, replace(PROVENANCE, processes=2), CODE)
    assert two.key == Checkpoints(tmp_path, PROVENANCE, CODE).key


@pytest.mark.parametrize(
    ("change", "code", "difference"),
    [
        ({"device": "cpu, AVX512"}, CODE, "device cpu, AVX512 instead of cpu, AVX2"),
        ({"threads": 64}, CODE, f"threads 64 instead of {PROVENANCE.threads}"),
        ({}, {}, "other code"),
        ({"parameters": {"seed": 9}}, CODE, ""),
        ({"data": {}}, CODE, ""),
    ],
)
def test_a_checkpoint_of_another_machine_is_noted(checkpoints, change, code, difference, capsys):
    """A note says why a training that began on another kind of node starts from the beginning."""
    here = replace(PROVENANCE, device="cpu, AVX2")
    Checkpoints(checkpoints.root, replace(here, **change), code).save(0, STATE)
    mine = Checkpoints(checkpoints.root, here, CODE)
    with mine.exclusive():
        printed = capsys.readouterr().out
    consequence = "cannot be used: this training starts from the beginning"
    line = f"note: a checkpoint made with {difference} {consequence}\n"
    assert printed == (line if difference else "")
    mine.save(0, STATE)
    (
        checkpoints.root
        / Checkpoints(checkpoints.root, replace(here, **change), code).key
        / checkpoint.PROVENANCE
    ).write_text("{")
    with mine.exclusive():
        assert capsys.readouterr().out == ""


@pytest.mark.hostile
@pytest.mark.parametrize("content", ["", "[]", "5", "{", '{"parameters": 1}'])
def test_a_damaged_note_beside_a_checkpoint_does_no_harm(checkpoints, content, capsys):
    """The record of the machine beside a checkpoint serves only for a note."""
    folder = checkpoints.root / "other"
    folder.mkdir(parents=True)
    (folder / checkpoint.PROVENANCE).write_text(content)
    with checkpoints.exclusive():
        assert capsys.readouterr().out == ""


def test_the_order_of_keys_does_not_matter():
    """The same content in another order has the same key."""
    content = {"lr": 0.1, "code": {"a.py": "1"}}
    assert checkpoint.key(content) == checkpoint.key(dict(reversed(content.items())))


def hold(path, then="input()"):
    """Start a process that holds the lock at `path`."""
    code = (
        "from pathlib import Path\nfrom cifar.training import checkpoint\n"
        f"with checkpoint.exclusive(Path({str(path)!r})):\n print('held', flush=True)\n {then}"
    )
    command = [sys.executable, "-c", code]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=ROOT, **pipes)
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.slow
def test_a_second_process_waits(tmp_path, capsys):
    """While one process holds the lock another waits, prints for whom, and leaves a mark."""
    path = tmp_path / "folder/run.lock"
    with hold(path) as first:
        waiting = threading.Event()

        def release():
            while not checkpoint.waited_for(path):
                time.sleep(0.01)
            waiting.set()
            first.communicate("\n")

        thread = threading.Thread(target=release)
        thread.start()
        with checkpoint.exclusive(path):
            assert waiting.is_set()
            assert not checkpoint.waited_for(path)
        thread.join()
    printed = capsys.readouterr().out
    assert printed.startswith(f"waiting for the training by process {first.pid} on ")
    assert printed.count("\n") == 1 and "Ctrl-C gives up" in printed


@pytest.mark.slow
@pytest.mark.fault
def test_the_lock_of_a_killed_process_is_free(tmp_path):
    """The lock of a killed process is free at once, though its other files are left."""
    path = tmp_path / "run.lock"
    with hold(path) as first:
        first.kill()
    for _ in range(2):
        with checkpoint.exclusive(path):
            pass
    assert not path.with_suffix(".owner").exists()


def test_the_lock_is_released_after_an_error(tmp_path):
    """A training that fails leaves the lock free."""
    with pytest.raises(ValueError, match="inside"), checkpoint.exclusive(tmp_path / "lock"):
        raise ValueError("inside")
    with checkpoint.exclusive(tmp_path / "lock"):
        pass


def test_a_mark_of_waiting_grows_old(tmp_path):
    """The mark of a process that gave up waiting counts only for some seconds."""
    path = tmp_path / "run.lock"
    mark = path.with_suffix(".waiting")
    mark.touch()
    assert checkpoint.waited_for(path)
    past = time.time() - checkpoint.WAITING - 1
    os.utime(mark, (past, past))
    assert not checkpoint.waited_for(path)


def test_a_finished_run_is_deleted(checkpoints):
    """Deleting a finished run's checkpoints leaves those of other runs."""
    checkpoints.save(0, STATE)
    other = checkpoints.root / ("f" * 32)
    other.mkdir()
    checkpoints.delete()
    assert not checkpoints.folder.exists() and other.exists()
    checkpoints.delete()


@pytest.mark.slow
def test_a_finished_run_stays_for_one_that_waits(checkpoints):
    """Checkpoints stay while another process waits for the run or has resumed it."""
    checkpoints.save(0, STATE)
    checkpoints.lock.with_suffix(".waiting").touch()
    checkpoints.delete()
    assert checkpoints.folder.exists()
    checkpoints.lock.with_suffix(".waiting").unlink()
    with hold(checkpoints.lock) as other:
        checkpoints.delete()
        assert checkpoints.folder.exists()
        other.communicate("\n")
    checkpoints.delete()
    assert not checkpoints.folder.exists()


@pytest.fixture
def runs(tmp_path):
    """A function that makes a checkpoint folder of the given age in days."""
    root = tmp_path / ".checkpoints"

    def make(name, days):
        (root / name).mkdir(parents=True)
        (root / name / "0.pt").write_bytes(b"state")
        past = time.time() - days * 86400
        os.utime(root / name, (past, past))
        return root

    return make


def left(root):
    return sorted(path.name for path in root.iterdir() if path.is_dir())


def test_abandoned_runs_are_bounded_by_number(runs):
    """Only the latest interrupted runs stay, not counting the current one."""
    for number in range(checkpoint.KEPT_RUNS + 3):
        root = runs(f"run{number}", days=number)
    checkpoint.prune(root, keep="run7")
    expected = [f"run{number}" for number in range(checkpoint.KEPT_RUNS)]
    assert left(root) == sorted([*expected, "run7"])


def test_abandoned_runs_are_bounded_by_age(runs):
    """An interrupted run that is too old is removed, even if it is the only one."""
    root = runs("new", days=checkpoint.KEPT_DAYS - 1)
    runs("old", days=checkpoint.KEPT_DAYS + 1)
    runs("current", days=checkpoint.KEPT_DAYS + 1)
    checkpoint.prune(root, keep="current")
    assert left(root) == ["current", "new"]


@pytest.mark.fault
def test_a_run_that_another_process_removes_is_passed_over(runs, monkeypatch):
    """Two trainings that start together may both try to remove an old run."""
    root = runs("old", days=checkpoint.KEPT_DAYS + 1)
    gone = root / "gone"  # it existed when the folder was listed
    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", lambda _: iter([gone, root / "old"]))
        patch.setattr(Path, "is_dir", lambda _: True)
        checkpoint.prune(root, keep="")
    assert left(root) == []


@pytest.mark.fault
def test_a_holder_without_a_name_is_another_process(tmp_path, monkeypatch, capsys):
    """The holder of a lock may end before another process reads its name."""
    path = tmp_path / "lock"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "exists", lambda _: True)
        checkpoint.wait_for(FileLock(path), path, path.with_suffix(".owner"))
    assert "waiting for the training by another process (" in capsys.readouterr().out


def test_a_run_in_use_is_never_pruned(runs):
    """An old run stays while its lock is held, and is removed once it is free."""
    root = runs("old", days=1000)
    lock = FileLock(root / "old.lock")
    with lock:
        checkpoint.prune(root, keep="")
        assert left(root) == ["old"]
    checkpoint.prune(root, keep="")
    assert left(root) == []


def test_taking_the_lock_prunes(checkpoints, runs):
    """A run that starts removes old abandoned runs."""
    runs("old", days=1000)
    with checkpoints.exclusive():
        assert left(checkpoints.root) == []
