"""Shares of a batch; several processes are tried in tests/stages/test_train.py."""

import pytest
import torch

from cifar import UserError
from cifar.training import distributed
from cifar.training.distributed import World


@pytest.mark.parametrize(("count", "size"), [(10, 1), (10, 2), (11, 2), (500, 3), (4, 4)])
def test_the_parts_are_the_batch(count, size):
    """All processes together see each image once, in its order, and none has more than one image more than another."""
    batch = torch.randperm(count)
    parts = [World(rank, size, rank).part(batch) for rank in range(size)]
    assert torch.equal(torch.cat(parts), batch)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_alone_nothing_is_shared():
    """One process passes everything through as it is, and joins nobody."""
    world, net, numbers = World(), torch.nn.Linear(1, 1), torch.ones(2)
    assert world.wrap(net) is net
    assert world.total(numbers) is numbers
    assert world.first((0.1, 0.2), torch.device("cpu")) == (0.1, 0.2)
    assert world.same(numbers) is numbers
    distributed.join(world, torch.device("cpu"))
    assert not torch.distributed.is_initialized()


def test_who_started_this_process(monkeypatch):
    """torchrun says who is who by the environment; without it there is one process."""
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


def test_what_a_process_said_is_passed_on(tmp_path, monkeypatch, capsys):
    """The launcher's pages about a failed process become the one line that it said, or one on how it ended."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "said.py").write_text(
        "import sys\nsys.stderr.write('error: no luck (here): try\\n')\nsys.exit(1)"
    )
    with pytest.raises(UserError, match=r"^no luck \(here\): try$"):
        distributed.launch("said", 2)
    (tmp_path / "died.py").write_text("import os\nos.kill(os.getpid(), 9)")
    with pytest.raises(
        UserError, match=r"^a training process ended by SIGKILL \(train.processes\): run the same"
    ):
        distributed.launch("died", 1)
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(SystemExit):
        distributed.launch("broken", 1)
    assert "ZeroDivisionError" in capsys.readouterr().err
