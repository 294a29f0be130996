"""Parts of a batch, ranks and messages; tests/stages/test_train.py runs several processes."""

from pathlib import Path

import pytest
import torch

from cifar import UserError, hardware
from cifar.training import distributed
from cifar.training.distributed import World

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("count", "size"), [(10, 1), (10, 2), (11, 2), (500, 3), (4, 4)])
def test_the_parts_are_the_batch(count, size):
    """The parts make up the batch in its order, and their sizes differ by at most one."""
    batch = torch.randperm(count)
    parts = [World(rank, size, rank).part(batch) for rank in range(size)]
    assert torch.equal(torch.cat(parts), batch)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_alone_nothing_is_shared():
    """A single process passes everything through unchanged, and connects to no others."""
    world, net, numbers = World(), torch.nn.Linear(1, 1), torch.ones(2)
    assert world.wrap(net) is net
    assert world.all_reduce(numbers) is numbers
    assert world.broadcast((0.1, 0.2)) == (0.1, 0.2)
    assert world.broadcast_object(numbers) is numbers
    distributed.join(world)
    assert not torch.distributed.is_initialized()


def test_who_started_this_process(monkeypatch):
    """torchrun sets the ranks in environment variables; without them there is one process."""
    monkeypatch.delenv("RANK", raising=False)
    assert distributed.started() is None
    for name, value in (
        ("RANK", "5"),
        ("WORLD_SIZE", "8"),
        ("LOCAL_RANK", "1"),
        ("LOCAL_WORLD_SIZE", "4"),
    ):
        monkeypatch.setenv(name, value)
    assert distributed.started() == World(5, 8, 1, 4)


@pytest.mark.hostile
@pytest.mark.parametrize("rank", ["", "-1", "one", "²", "9" * 5000])
def test_variables_that_torchrun_has_not_set_are_one_line(rank, monkeypatch):
    """Other launchers set only some of the variables, or in another form."""
    for name in ("WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("RANK", rank)
    with pytest.raises(UserError, match=r"^'.*' is not a number \(RANK\): unset RANK"):
        distributed.started()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("LOCAL_RANK")
    with pytest.raises(UserError, match=r"^'' is not a number \(LOCAL_RANK\): unset RANK"):
        distributed.started()


PATIENT = """
import time
from datetime import timedelta
from torch import distributed as d
from cifar.training import distributed

init = d.init_process_group
d.init_process_group = lambda backend: init(backend, timeout=timedelta(seconds=20))
world = distributed.start("x", device="cpu", processes=2, threads=1, batch_size=8)
if world.rank == 0:
    time.sleep(30)
state = world.broadcast_object({"epoch": 1} if world.rank == 0 else None)
assert state == {"epoch": 1}
assert world.broadcast((1.0, 2.0)) == (1.0, 2.0)
"""


@pytest.mark.long
def test_processes_wait_for_the_first_which_may_wait_for_a_lock(tmp_path, monkeypatch):
    """Only the wait for a checkpoint may be long; the limit for other messages stays short."""
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    (tmp_path / "patient.py").write_text(PATIENT)
    distributed.launch("patient", 2)
    impatient = PATIENT.replace("state = world", "world.broadcast((1.0,))\nstate = world")
    (tmp_path / "impatient.py").write_text(impatient)
    with pytest.raises(SystemExit):
        distributed.launch("impatient", 2)


@pytest.mark.long
def test_the_message_of_a_process_is_passed_on(tmp_path, monkeypatch, capsys):
    """The error of a failed process, or how it was ended, replaces the launcher's long output."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "refused.py").write_text(
        "import sys\nsys.stderr.write('error: no luck (here): try\\n')\nsys.exit(1)"
    )
    with pytest.raises(UserError, match=r"^no luck \(here\): try$"):
        distributed.launch("refused", 2)
    (tmp_path / "died.py").write_text("import os\nos.kill(os.getpid(), 9)")
    ended = r"^a training process was ended by SIGKILL \(train.processes\): run the same command"
    with pytest.raises(UserError, match=ended):
        distributed.launch("died", 1)
    (tmp_path / "both.py").write_text(  # the launcher may first list those that it ended itself
        "import os\nos.kill(os.getpid(), 15 - 6 * int(os.environ['RANK']))"
    )
    with pytest.raises(UserError, match=ended):
        distributed.launch("both", 2)
    (tmp_path / "lonely.py").write_text(  # a process that loses a killed one has its own error
        "import os, sys\n"
        "if os.environ['RANK'] == '1':\n    os.kill(os.getpid(), 9)\n"
        "sys.stderr.write('error: no connection (gloo): set\\n')\nsys.exit(1)"
    )
    with pytest.raises(UserError, match=ended):
        distributed.launch("lonely", 2)
    (tmp_path / "raised.py").write_text(  # torch marks what a process raises like this
        "import os, sys, time\n"
        "time.sleep(99 * int(os.environ['RANK']))\n"
        "sys.stderr.write('[rank0]: RuntimeError: unused\\n')\nsys.exit(1)"
    )
    with pytest.raises(SystemExit):
        distributed.launch("raised", 2)
    assert "RuntimeError: unused" in capsys.readouterr().err
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(SystemExit):
        distributed.launch("broken", 1)
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.fixture
def gpus(monkeypatch):
    """A function that makes torch report `count` GPUs."""
    monkeypatch.setattr(hardware, "make_deterministic", lambda device: None)

    def pretend(count, mps=False):
        names = [f"cuda:{i}" for i in range(count)]
        monkeypatch.setattr(hardware, "find_gpus", lambda: (names, ""))
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


@pytest.mark.hostile
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_more_processes_than_gpus_are_refused(gpus, device):
    """With one GPU for two processes, the error gives the number of GPUs and two ways out."""
    gpus(1)
    with pytest.raises(UserError) as caught:
        distributed.check_devices(device, processes=2)
    advice = "(params.yaml, train.processes): lower it, or set train.device to cpu"
    assert str(caught.value) == f"2 processes need 2 GPUs, but only 1 is available {advice}"
    gpus(2)
    distributed.check_devices(device, processes=2)


def test_several_processes_share_a_cpu_but_not_apples_gpu(gpus):
    """Without a GPU the processes share the CPU; an Apple GPU serves one process."""
    gpus(0)
    distributed.check_devices("auto", processes=2)
    gpus(0, mps=True)
    with pytest.raises(UserError, match=r"Apple GPU .* set it to 1, or set train\.device to cpu$"):
        distributed.check_devices("auto", processes=2)
    distributed.check_devices("cpu", processes=2)


def test_a_batch_too_small_for_the_processes_is_refused(monkeypatch):
    """Each process needs two images of every batch."""
    values = {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "4"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    options = {"device": "cpu", "processes": 4, "threads": 1, "batch_size": 7}
    with pytest.raises(UserError, match=r"^a batch of 7 images is too small for .* use 8 or more$"):
        distributed.start("stages.train", **options)
