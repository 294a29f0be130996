"""The tables and charts that are generated from results/."""

import re
from pathlib import Path

import pytest
from test_results import RESULT

from benchmarks import pictures, results, tables

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = {"gap": {"dataset": "cifar10", "accuracy": 0.7305, "epochs": 10}}


@pytest.mark.parametrize("page", tables.PAGES, ids=str)
def test_the_pages_are_up_to_date(page, monkeypatch):
    """`python -m benchmarks tables` would change nothing."""
    monkeypatch.chdir(ROOT)
    assert tables.fill(page.read_text(), tables.read_runs(), results.read_published()) == (
        page.read_text()
    ), "run `python -m benchmarks tables` and commit"


def test_every_large_difference_is_explained(monkeypatch):
    """A row more than two points away from the published number has a sentence."""
    monkeypatch.chdir(ROOT)
    text = (ROOT / "RESULTS.md").read_text()
    section = re.search(r"### Differences above two points\n(.*?)\n#", text, re.DOTALL)
    explained = set(re.findall(r"^- `([\w-]+)`", section[1], re.MULTILINE))
    rows = tables.group(tables.read_runs(), results.read_published())
    large = {row.recipe for row in rows if row.runs and row.published and abs(row.difference) > 2}
    assert large - explained == set()


def test_seeds_are_averaged():
    """Runs that differ by their seed are one row: their mean and its interval by Student's t."""
    runs = [
        RESULT.model_copy(update={"seed": seed, "accuracy": accuracy})
        for seed, accuracy in enumerate([0.70, 0.71, 0.72])
    ]
    text = tables.fill("<!-- table: all -->\n<!-- end -->", runs, PUBLISHED)
    assert "| `gap` | 73.05 | 71.00 | 68.52 to 73.48 | 3 | -2.05 | 0.800 | 10 | 1 | A |" in text


@pytest.mark.parametrize(
    "other",
    [{"code": "2" * 12}, {"versions": {"torch": "2.15.0"}}, {"device": "cpu, AVX512"}],
    ids=lambda other: next(iter(other)),
)
def test_other_code_has_a_row_of_its_own(other):
    """Runs with different code, torch or instruction sets are not averaged."""
    runs = [RESULT, RESULT.model_copy(update={"seed": 1, "accuracy": 0.5} | other)]
    assert [len(row.runs) for row in tables.group(runs, PUBLISHED)] == [1, 1]


def test_other_data_are_not_compared():
    """A run on a data set other than the published one has no row."""
    digits = RESULT.dataset.model_copy(update={"name": "digits"})
    run = RESULT.model_copy(update={"dataset": digits})
    assert [row.runs for row in tables.group([run], PUBLISHED)] == [[]]


def test_beginnings_are_set_apart():
    """A run cut short is only in the table of beginnings, until there is a complete run."""
    short = RESULT.model_copy(update={"changes": {"train.epochs": 3}, "epochs": 3})
    page = "<!-- table: all -->\n<!-- end -->\n<!-- beginnings -->\n<!-- end -->"
    whole, beginnings = tables.fill(page, [short], PUBLISHED).split("<!-- beginnings -->")
    assert "not measured yet" in whole and "72.00" not in whole
    assert "python -m benchmarks recipes gap\n" in whole
    assert "| `gap` | 3 of 10 | 72.00 |" in beginnings
    assert tables.fill(page, [short, RESULT], PUBLISHED).split("<!-- beginnings -->")[1] == (
        "\nNone.\n<!-- end -->"
    )


def test_changed_values_are_shown_with_their_recipe():
    """A run with a changed value has a row in `changed` and in its recipe's table, not in `all`."""
    changed = RESULT.model_copy(update={"changes": {"train.ensemble": 3}})
    row = "| `gap` `train.ensemble=3` |  | 72.00 |"
    for marker, there in (("table: all", False), ("changed", True), ("table: gap", True)):
        text = tables.fill(f"<!-- {marker} -->\n<!-- end -->", [changed], PUBLISHED)
        assert (row in text) == there, marker


def test_the_pictures_show_the_numbers(monkeypatch):
    """The chart of recipes has the published and the measured accuracy of each row, in per cent."""
    monkeypatch.chdir(ROOT)
    rows = [row for row in tables.group([RESULT], PUBLISHED) if row.runs]
    axis = pictures.compare(rows).axes[0]
    points = {line.get_label(): list(line.get_xdata()) for line in axis.lines}
    assert points["published"] == [73.05] and points["here, 95 % interval"] == [72.0]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["gap (AVX2)"]


def test_pictures_are_drawn_as_far_as_there_are_results(tmp_path, monkeypatch):
    """The charts of convpool and dense-head are drawn once these recipes have a history."""
    monkeypatch.chdir(tmp_path)
    history = [
        {"epoch": epoch, "train_loss": 1, "train_accuracy": 0.5, "val_loss": 1, "val_accuracy": 0.5}
        for epoch in (1, 2)
    ]
    published = results.read_published(ROOT / results.RECIPES)
    own = [
        RESULT.model_copy(update={"recipe": name, "history": history})
        for name in ("convpool", "dense-head")
    ]
    assert [path.name for path in pictures.draw([RESULT], published)] == ["recipes.png"]
    drawn = list(pictures.draw(own, published))
    assert [path.name for path in drawn] == ["recipes.png", "convpool.png", "dense-head.png"]
    assert all((tmp_path / path).read_bytes().startswith(b"\x89PNG") for path in drawn)
