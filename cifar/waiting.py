"""How the threads of OpenMP wait for each other. Import this before torch.

PyTorch's CPU kernels run on GNU's OpenMP (libgomp). A thread that waits there spins, for up to
milliseconds, before it sleeps. On a quiet machine that is fastest. On a busy one the spinning
threads take the cores from the thread that they wait for, and training falls far below its fair
share. So the length of the spin follows the load at the start of the program. It changes no bit of
any result.

libgomp reads its environment when torch loads it, which is why this module acts when imported.
What the user has set stays. Other systems have another OpenMP.
"""

import os
import statistics
import sys
import time
from pathlib import Path

SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
BUSY_SPINS = "1000"  # some microseconds; docs: benchmarks/RESULTS.md
LOOKS = 5
PAUSE = 0.004  # seconds between two looks


def choose() -> None:
    """Shorten the spin if another process wants a core at this moment."""
    if sys.platform != "linux" or any(name in os.environ for name in SETTINGS):
        return
    if others_running() >= 1:
        os.environ["GOMP_SPINCOUNT"] = BUSY_SPINS


def others_running() -> float:
    """The median number of other threads that run or want to, over a few looks; 0 if unknown."""
    try:
        return statistics.median(look() for _ in range(LOOKS))
    except (OSError, ValueError, IndexError):
        return 0


def look() -> int:
    """One look, from the fourth field of /proc/loadavg: running threads / all threads."""
    time.sleep(PAUSE)
    running = Path("/proc/loadavg").read_text().split()[3].partition("/")[0]
    return int(running) - 1  # this one


choose()
