"""The committed result of the default, with which `dvc metrics diff` compares in a fresh clone."""

import json
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent


def keys(tree, prefix=""):
    """The dotted keys of nested mappings."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


@pytest.mark.parametrize("name", ["train", "test"])
def test_committed_metrics_have_the_keys_of_a_run(name, first_run):
    """The committed metrics have the keys that the code writes now."""
    path = f"metrics/{name}.json"
    committed = json.loads((ROOT / path).read_text())
    assert set(keys(committed)) == set(
        keys(json.loads((first_run.project.path / path).read_text()))
    )


@pytest.mark.parametrize("name", ["history", "classes"])
def test_committed_tables_have_the_columns_of_a_run(name, first_run):
    """The committed tables have the columns that the code writes now."""
    path = f"plots/{name}.csv"
    committed = pd.read_csv(ROOT / path)
    assert list(committed) == list(pd.read_csv(first_run.project.path / path))


def test_the_committed_numbers_are_of_one_model():
    """The training and test numbers are of the same weights, kept from the last epoch."""
    train, test = (
        json.loads((ROOT / f"metrics/{name}.json").read_text()) for name in ("train", "test")
    )
    assert train["model"] == test["model"]
    last = pd.read_csv(ROOT / "plots/history.csv").iloc[-1]
    assert train["epoch"] == last["epoch"]
    assert train["val"]["accuracy"] == pytest.approx(last["val_accuracy"], abs=1e-5)
