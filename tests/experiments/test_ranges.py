"""The ranges of a search: read from a file, and checked before the first trial."""

import re
from pathlib import Path

import pytest

from cifar import UserError
from cifar.experiments import ranges

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.lr: {log: [0.2, 0.1]}", "train.lr: 0.2 is not below 0.1"),
        ("train.lr: {log: [0, 0.1]}", "train.lr: 0 has no logarithm (ranges.yaml)"),
        (
            "train.lr: {logarithmic: [0.1, 0.2]}",
            "train.lr: {'logarithmic': [0.1, 0.2]} (ranges.yaml): write {KIND:",
        ),
        ("train.lr: 0.1", "train.lr: 0.1 (ranges.yaml): write {KIND: [LOW, HIGH]}"),
        ("train.lr: {float: [0.1, high]}", "train.lr: [0.1, 'high'] is not a range of kind float"),
        ("train.epochs: {int: [1, 2.5]}", "train.epochs: [1, 2.5] is not a range of kind int"),
        ("train.droput: {float: [0, 0.5]}", "unknown key train.droput (did you mean dropout?)"),
        ("train.dropout: {float: [0, 1]}", "train.dropout = 1.0: must be less than 1"),
        ("train.optimizer: {choice: [sgd, adm]}", "train.optimizer = 'adm': must be"),
        ("train.optimizer: {choice: []}", "train.optimizer: no values (ranges.yaml)"),
        ("{}", "no ranges (ranges.yaml): write for example"),
        ("", "no sections (ranges.yaml)"),
        (
            "preprocess.val_fraction: {float: [0.1, 0.2]}",
            "preprocess.val_fraction is not a parameter of train (ranges.yaml)",
        ),
    ],
)
def test_a_range_that_params_could_not_hold_is_refused(text, message, folder):
    """Unknown keys, kinds and values and reversed ranges are errors before the first trial."""
    (folder / "ranges.yaml").write_text(text)
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        ranges.read("ranges.yaml")


def test_the_example_fits(folder):
    """docs/search.example.yaml has every kind of range and fits params.yaml."""
    known = ranges.read(ROOT / "docs/search.example.yaml")
    assert {kind for kind, _ in known.values()} == set(ranges.KINDS)
