"""How OpenMP's threads wait: only briefly if other programs need the cores, else as in libgomp."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from cifar import waiting

ROOT = Path(__file__).parent.parent
LIBGOMP = sys.platform == "linux" and "libgomp" in Path("/proc/self/maps").read_text()
# libgomp does not say what it counts, so this program counts the threads of its process.
COUNT = """
import os, torch
from cifar.waiting import Sleeper
torch.set_num_threads(2)
def threads():
    torch.zeros(1 << 17).add_(1)
    return len(os.listdir("/proc/self/task"))
before = threads()
sleeper = Sleeper()
while threads() < before + 2:
    pass
sleeper.end()
while threads() > before:
    pass
"""


@pytest.fixture
def environment(monkeypatch):
    """A Linux system without the user's settings, on which `follow` looks without a pause."""
    for name in waiting.SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(waiting, "PERIOD", 0.0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(waiting, "cores", lambda: 2)
    return monkeypatch


def follow(environment, waited):
    """The events of `follow` for these seconds waited: + if a sleeper starts, - if it ends."""
    events = []
    ending = threading.Event()
    left = iter(waited)

    class Sleeper:
        def __init__(self):
            events.append("+")

        def end(self):
            events.append("-")

    def seconds_waited():
        value = next(left, None)
        if value is None:
            ending.set()
            return waited[-1]
        events.append(value)
        return value

    environment.setattr(waiting, "Sleeper", Sleeper)
    environment.setattr(waiting, "seconds_waited", seconds_waited)
    environment.setattr(waiting, "PERIOD", 1e-9)
    waiting.follow(ending)
    return events


def test_a_sleeper_is_kept_while_the_threads_wait_for_cores(environment):
    """It starts when the seconds waited grow, and ends when they do not or the program ends."""
    assert follow(environment, [0, 0, 5, 9, 9, 9, 20]) == [0, 0, 5, "+", 9, 9, "-", 9, 20, "+", "-"]


def test_spare_cores_are_left_to_spin_on(environment):
    """With fewer threads than cores, nothing changes."""
    environment.setattr(waiting, "cores", lambda: 3)
    assert "+" not in follow(environment, [0, 5, 9])


@pytest.mark.parametrize("name", waiting.SETTINGS)
def test_what_the_user_has_set_stays(name, environment):
    """If either variable is set, nothing is watched."""
    environment.setenv(name, "5")
    environment.setattr(threading, "Thread", None)
    waiting.watch(torch.device("cpu"))


def test_other_systems_are_left_alone(environment):
    """On other systems, which have another OpenMP and no /proc, nothing is watched."""
    environment.setattr(sys, "platform", "darwin")
    environment.setattr(threading, "Thread", None)
    waiting.watch(torch.device("cpu"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_thread_that_waits_for_a_core_is_noticed():
    """If two spinning processes share a core, the seconds that one of them waits add up."""
    spin = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    other = subprocess.Popen([sys.executable, "-c", spin + "while True: pass"])
    try:
        count = spin + (
            "import time\nfrom cifar.waiting import seconds_waited\n"
            "while seconds_waited() < 0.2: pass"
        )
        subprocess.run([sys.executable, "-c", count], cwd=ROOT, check=True, timeout=600)
    finally:
        other.kill()
        other.wait()


@pytest.mark.slow
@pytest.mark.skipif(not LIBGOMP, reason="torch runs on another OpenMP here")
def test_a_sleeper_has_a_worker_until_its_end():
    """OpenMP adds a worker for the sleeper, which libgomp counts, until the sleeper ends."""
    subprocess.run([sys.executable, "-c", COUNT], cwd=ROOT, check=True, timeout=600)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="watches on Linux only")
def test_a_program_ends_with_its_watcher():
    """A program that computes on the CPU has one watcher, and exits at once with code 0."""
    code = (
        "import os, threading\n"
        "for name in ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT'): os.environ.pop(name, 0)\n"
        "import torch\n"
        "from cifar import waiting\n"
        "waiting.watch(torch.device('cuda'))\n"
        "waiting.watch(torch.device('cpu'))\n"
        "assert threading.active_count() == 2"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=600)
