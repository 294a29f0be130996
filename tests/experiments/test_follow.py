"""The epochs of a training, read while it writes them."""

from cifar.experiments.progress import Epochs


def test_each_row_is_read_once_and_whole(tmp_path):
    """Without a file there are no rows; each row is read once, when its line is complete."""
    path = tmp_path / "epochs.jsonl"
    epochs = Epochs(path)
    assert epochs.new() == []
    path.write_text('{"epoch": 1}\n{"epoch": 2}\n{"ep')
    assert epochs.new() == [{"epoch": 1}, {"epoch": 2}]
    assert epochs.new() == []
    with path.open("a") as handle:
        handle.write('och": 3}\n')
    assert epochs.new() == [{"epoch": 3}]


def test_a_log_that_begins_again_is_read_from_its_start(tmp_path):
    """`make clean` removes the file of a running training, which then writes a new one."""
    path = tmp_path / "epochs.jsonl"
    epochs = Epochs(path)
    path.write_text('{"epoch": 1}\n{"epoch": 2}\n{"epoch": 3}\n')
    assert len(epochs.new()) == 3
    path.unlink()
    path.write_text('{"epoch": 4}\n')
    assert epochs.new() == [{"epoch": 4}]
