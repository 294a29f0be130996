"""How the threads of OpenMP wait for each other: briefly while others want the cores.

PyTorch's CPU kernels run on GNU's OpenMP (libgomp). A thread that waits there spins for some
milliseconds before it sleeps. On a quiet machine that is fastest. On a busy one the spinning
threads take the cores from the thread that they wait for, and training falls far below its fair
share.

libgomp spins for far shorter while a process has more OpenMP threads than cores (its manual,
GOMP_SPINCOUNT: 100 times instead of 300,000). So while the threads of this process have to wait for
cores, one more OpenMP thread is kept, asleep. It changes no bit of any result. What the user has
set stays. Other systems than Linux have another OpenMP.
"""

import atexit
import contextlib
import os
import sys
import threading
from pathlib import Path

import torch

SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
PERIOD = 0.2  # seconds between two looks
BUSY = 0.1  # seconds that the threads wait for a core, per second
PARALLEL = 1 << 17  # elements; torch shares the work on so many among its threads


def watch(device: torch.device) -> None:
    """Follow the load in the background until the program ends, if it computes on the CPU."""
    if device.type != "cpu" or sys.platform != "linux" or any(s in os.environ for s in SETTINGS):
        return
    ending = threading.Event()
    thread = threading.Thread(target=follow, args=[ending], daemon=True)
    thread.start()

    def stop() -> None:  # Python must not end a thread inside of torch
        ending.set()
        thread.join()

    atexit.register(stop)


def follow(ending: threading.Event) -> None:
    """Keep a sleeper while others want the cores, until `ending` is set."""
    sleeper = None
    before = seconds_waited()
    while not ending.wait(PERIOD):
        waited = seconds_waited()
        busy = waited - before > BUSY * PERIOD
        before = waited
        if busy and not sleeper and torch.get_num_threads() >= cores() > 1:
            sleeper = Sleeper()
        elif sleeper and not busy:
            sleeper.end()
            sleeper = None
    if sleeper:
        sleeper.end()


class Sleeper:
    """A thread that uses OpenMP once, then sleeps; until its end, libgomp counts its workers."""

    def __init__(self) -> None:
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.sleep, daemon=True)
        self.thread.start()

    def sleep(self) -> None:
        torch.zeros(PARALLEL).add_(1)
        self.ending.wait()

    def end(self) -> None:
        self.ending.set()
        self.thread.join()


def seconds_waited() -> float:
    """How long the threads of this process were ready and had no core, added up.

    0 if the kernel does not count it. It shrinks when a thread ends.
    """
    total = 0
    for path in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # that thread has just ended
            total += int(path.read_text().split()[1])
    return total / 1e9


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))
