"""How OpenMP's threads wait: shorter on a busy machine, as before on a quiet one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cifar import waiting

ROOT = Path(__file__).parent.parent


@pytest.fixture
def environment(monkeypatch):
    """No setting of the user's, on Linux."""
    for name in waiting.SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(waiting, "PAUSE", 0.0)
    return monkeypatch


@pytest.mark.parametrize(
    ("running", "spins"), [([1] * 5, None), ([3] * 5, "1000"), ([1, 1, 1, 9, 9], None)]
)
def test_a_busy_machine_shortens_the_spin(running, spins, environment):
    """Another thread that runs at most looks shortens it, one that runs for a moment does not."""
    looks = iter(running)
    environment.setattr(waiting, "look", lambda: next(looks) - 1)
    waiting.choose()
    assert os.environ.get("GOMP_SPINCOUNT") == spins


@pytest.mark.parametrize("name", waiting.SETTINGS)
def test_what_the_user_has_set_stays(name, environment):
    """With either variable set, nothing is changed."""
    environment.setenv(name, "5")
    environment.setattr(waiting, "look", lambda: 8)
    waiting.choose()
    assert {key: os.environ.get(key) for key in waiting.SETTINGS}[name] == "5"
    assert sum(key in os.environ for key in waiting.SETTINGS) == 1


def test_other_systems_are_left_alone(environment):
    """Their OpenMP is another one, and they have no /proc."""
    environment.setattr(sys, "platform", "darwin")
    environment.setattr(waiting, "look", lambda: 8)
    waiting.choose()
    assert "GOMP_SPINCOUNT" not in os.environ


def test_an_unreadable_load_changes_nothing(environment):
    """Without /proc/loadavg nobody knows."""

    def fail():
        raise OSError

    environment.setattr(waiting, "look", fail)
    assert waiting.others_running() == 0


@pytest.mark.parametrize(
    "program", ["stages.train", "stages.evaluate", "tools.predict", "tools.export"]
)
def test_it_comes_before_torch(program):
    """libgomp reads its environment when torch loads it."""
    order = (
        "import builtins, sys\n"
        "real, seen = builtins.__import__, []\n"
        "def note(name, *rest, **words):\n"
        "    seen.append(name)\n"
        "    if name == 'torch':\n"
        "        assert 'cifar.waiting' in sys.modules, seen\n"
        "        raise SystemExit(0)\n"
        "    return real(name, *rest, **words)\n"
        "builtins.__import__ = note\n"
        f"import {program}\n"
        "raise SystemExit('torch was never imported')"
    )
    subprocess.run([sys.executable, "-c", order], cwd=ROOT, check=True, timeout=600)
