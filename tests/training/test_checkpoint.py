"""State between two runs: damage is noticed, strangers are not used, one run at a time."""

import hashlib
import io
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cifar import UserError
from cifar.training import checkpoint

ROOT = Path(__file__).parents[2]
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


def test_a_state_comes_back(saved):
    """What was dumped is loaded, to the bit; where there is no file there is no state."""
    loaded = checkpoint.load(saved)
    assert torch.equal(loaded.pop("weights"), STATE["weights"])
    assert loaded == {key: value for key, value in STATE.items() if key != "weights"}
    assert checkpoint.load(saved.with_name("none")) is None


def test_the_same_state_gives_the_same_bytes(saved):
    """A state dumped twice is the same file."""
    assert checkpoint.dump(STATE) == saved.read_bytes()


def test_any_flipped_bit_is_noticed(saved, capsys):
    """A single changed bit, in the sum or in the content, makes a state unusable, and says so."""
    content = saved.read_bytes()
    for place in [0, 31, 32, *range(33, len(content), 97), len(content) - 1]:
        for bit in (1, 128):
            damaged = bytearray(content)
            damaged[place] ^= bit
            saved.write_bytes(damaged)
            assert checkpoint.load(saved) is None
            assert (
                capsys.readouterr().out
                == f"note: {saved} is damaged and is not used: training starts anew\n"
            )


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 500, -1])
def test_a_cut_file_is_noticed(saved, length):
    """A file that was emptied or cut anywhere is not used."""
    saved.write_bytes(saved.read_bytes()[:length])
    assert checkpoint.load(saved) is None


class Code:
    """A pickle that would run code."""

    def __reduce__(self):
        return exec, ("raise SystemExit('the file ran code')",)


def test_a_state_is_data_only(saved):
    """A file with a right sum and code in it does not run that code."""
    buffer = io.BytesIO()
    torch.save({"epoch": Code()}, buffer)
    saved.write_bytes(hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue())
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        checkpoint.load(saved)


def test_the_key_changes_with_every_fact():
    """Another value or another name of a fact gives another key; their order does not."""
    facts = {"lr": 0.1, "code": {"a.py": "1"}}
    key = checkpoint.key(facts)
    assert key == checkpoint.key(dict(reversed(facts.items())))
    others = [
        checkpoint.key({"lr": 0.2, "code": {"a.py": "1"}}),
        checkpoint.key({"rate": 0.1, "code": {"a.py": "1"}}),
        checkpoint.key({"lr": 0.1, "code": {"a.py": "2"}}),
        checkpoint.key({"lr": 0.1}),
    ]
    assert len({key, *others}) == 5
    assert all(len(text) == 32 and set(text) <= set("0123456789abcdef") for text in [key, *others])


def test_a_second_process_is_refused(tmp_path):
    """While one process holds the lock another is told so at once; when it is killed the lock is free."""
    path = tmp_path / "folder/lock"
    hold = f"from pathlib import Path\nfrom cifar import checkpoint\nwith checkpoint.exclusive(Path({str(path)!r})):"
    first = subprocess.Popen(
        [sys.executable, "-c", f"{hold}\n print('held', flush=True)\n input()"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with first:
        assert first.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match=r"^another training .*\(.*folder/lock\)"),
            checkpoint.exclusive(path),
        ):
            pass
        first.kill()
    with checkpoint.exclusive(path):
        pass
    with checkpoint.exclusive(path):
        pass


def test_the_lock_is_released_after_an_error(tmp_path):
    """A training that fails leaves the lock free."""
    with pytest.raises(ValueError, match="inside"), checkpoint.exclusive(tmp_path / "lock"):
        raise ValueError("inside")
    with checkpoint.exclusive(tmp_path / "lock"):
        pass
