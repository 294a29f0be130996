"""Make OpenMP threads wait only briefly for each other while other programs use the cores.

PyTorch's CPU kernels run on GNU's OpenMP (libgomp). Its threads spin for some milliseconds before
they sleep. On a quiet machine this is the fastest way to wait. On a busy one, the spinning threads
take the cores from the thread that they wait for, and training gets much less than its fair part of
the machine.

libgomp spins far less while a process has more OpenMP threads than cores (100 times instead of
300,000; see GOMP_SPINCOUNT in its manual). So while the threads of this process have to wait for
cores, this module keeps one more OpenMP thread, which sleeps. It does not change a bit of any
result. Nothing is done if the user has set one of SETTINGS, or on systems other than Linux, which
have another OpenMP.
"""

import atexit
import contextlib
import os
import sys
import threading
from pathlib import Path

import torch

SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
PERIOD = 0.2  # seconds between two measurements
BUSY = 0.1  # seconds that the threads wait for a core, per second
PARALLEL = 1 << 17  # elements; enough for torch to divide the work among its threads


def watch(device: torch.device) -> None:
    """Watch the load in the background until the program ends, if the device is the CPU."""
    if device.type != "cpu" or sys.platform != "linux" or any(s in os.environ for s in SETTINGS):
        return
    ending = threading.Event()
    thread = threading.Thread(target=follow, args=[ending], daemon=True)
    thread.start()

    def stop() -> None:  # Python must not end while the thread is inside torch
        ending.set()
        thread.join()

    atexit.register(stop)


def follow(ending: threading.Event) -> None:
    """Until `ending` is set, keep a sleeper while other programs use the cores."""
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
    """A thread that uses OpenMP once, then sleeps. Until it ends, libgomp counts its workers."""

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
    """The total time that the threads of this process were ready to run but had no core.

    It is 0 if the kernel does not record it, and decreases when a thread ends.
    """
    total = 0
    for path in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # that thread has just ended
            total += int(path.read_text().split()[1])
    return total / 1e9


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0))
