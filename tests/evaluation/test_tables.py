"""The tables of results: their content is checked, and damage is refused in one line."""

from dataclasses import MISSING, fields

import numpy as np
import pytest

from cifar import UserError, files
from cifar.evaluation import tables
from cifar.evaluation.tables import Evaluation, Numbers

CLASSES = ("NA", "7")  # names that pandas would convert
PREDICTIONS = "image,actual,predicted,confidence,raw_confidence\na.png,NA,7,0.75,0.5\n"
TABLE = "class,accuracy,images,accuracy_low,accuracy_high\nNA,0.5,4,0.2,0.8\n7,0,0,0,1\n"
HISTORY = (
    "network,epoch,lr,train_loss,train_accuracy,val_loss,val_accuracy\n"
    "0,1,0.1,2.5,0.1,2.4,0.2\n0,2,0.1,1.5,0.6,1.4,0.7\n1,1,0.1,2.5,0.1,2.4,0.2\n"
)
NUMBERS = {f.name: 0.5 for f in fields(tables.Numbers) if f.default is MISSING}


def write(path, text):
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_predictions_have_their_types(tmp_path):
    """Names stay text whatever they look like, and confidences are numbers."""
    table = tables.read_predictions(write(tmp_path / "p.csv", PREDICTIONS), CLASSES)
    assert table.to_dict("records") == [
        {
            "image": "a.png",
            "actual": "NA",
            "predicted": "7",
            "confidence": 0.75,
            "raw_confidence": 0.5,
        }
    ]
    assert tables.right(table).tolist() == [False]


def test_classes_are_in_the_order_of_the_labels(tmp_path):
    """Each class has its row, also one without images."""
    table = tables.read_classes(write(tmp_path / "c.csv", TABLE), CLASSES)
    assert table["class"].tolist() == ["NA", "7"]
    assert table["images"].tolist() == [4, 0] and table["images"].dtype == np.int64


def test_each_network_has_its_history(tmp_path):
    """The history of an ensemble is one table per network, from epoch 1."""
    first, second = tables.read_history(write(tmp_path / "h.csv", HISTORY), (2, 1))
    assert first["epoch"].tolist() == [1, 2] and second["val_loss"].tolist() == [2.4]


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not a table"),
        (b"\xff\xfe\x00", "not a table"),
        ("\0" * 100, "its columns are not"),
        ("a,b\n1,2\n", "its columns are not image, actual"),
        (PREDICTIONS.splitlines()[0] + "\n", "the table has no rows"),
        (PREDICTIONS + 'b.png,"NA', "not a table"),
        (PREDICTIONS + "b.png,NA,7,0.5,0.5,9,9,9\n", "not a table"),
        (PREDICTIONS + "b.png,NA,7,nan,0.5\n", "'nan' is not a fraction (line 3, confidence)"),
        (PREDICTIONS + "b.png,NA,7,0.5,1.5\n", "'1.5' is not a fraction (line 3, raw_confidence)"),
        (PREDICTIONS + "b.png,NA\n", "'' is not a fraction (line 3, confidence)"),
        (PREDICTIONS + "b.png,NA,dog,0.5,0.5\n", "class 'dog' is not one of the model's"),
        ("<<<<<<< HEAD\n" + PREDICTIONS, "its columns are not"),
    ],
)
def test_damaged_predictions_are_one_line(text, problem, tmp_path):
    """Garbage, an empty table, and other columns, cells or classes are refused in one line."""
    path = write(tmp_path / "p.csv", text)
    refused(problem, path, "evaluate", tables.read_predictions, CLASSES)


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (TABLE.replace(",4,", ",4.5,"), "'4.5' is not a count (line 2, images)"),
        (TABLE.replace(",4,", ",-4,"), "'-4' is not a count"),
        (TABLE.replace(",4,", ",1e300,"), "'1e300' is not a count"),
        (TABLE.replace("NA", "other"), "its classes are not those of the model"),
        (TABLE.rpartition("7,")[0], "its classes are not those of the model"),
    ],
)
def test_damaged_classes_are_one_line(text, problem, tmp_path):
    """A table of classes must be of the model's classes, with whole counts."""
    path = write(tmp_path / "c.csv", text)
    refused(problem, path, "evaluate", tables.read_classes, CLASSES)


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("garbage", "its columns are not network, epoch"),
        (HISTORY.replace("2.5", "inf", 1), "'inf' is not a number (line 2, train_loss)"),
        (HISTORY.replace("0,2,", "0,3,"), "its epochs are not those of the model"),
        (HISTORY.rpartition("1,1")[0], "its epochs are not those of the model"),
        (HISTORY.replace("\n0,2,0.1,1.5,0.6,1.4,0.7", ""), "its epochs are not"),
    ],
)
def test_a_damaged_history_is_one_line(text, problem, tmp_path):
    """A history must have the epochs that the model kept, of each of its networks."""
    path = write(tmp_path / "h.csv", text)
    refused(problem, path, "train", tables.read_history, (2, 1))


@pytest.mark.hostile
@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        None,
        {"test": {}, "model": "0123"},
        {"test": NUMBERS},
        {"test": NUMBERS | {"accuracy": 1.5}, "model": "0123"},
        {"test": NUMBERS | {"accuracy": "0.5"}, "model": "0123"},
        {"test": NUMBERS | {"other": 1}, "model": "0123"},
    ],
)
def test_a_damaged_result_is_one_line(content, tmp_path):
    """Anything but the test metrics and their model is refused in one line."""
    path = tmp_path / "test.json"
    files.write_json(path, content)
    with pytest.raises(UserError) as caught:
        tables.read_result(path)
    assert "\n" not in str(caught.value) and "`dvc repro --force" in str(caught.value)
    files.write_json(path, {"test": NUMBERS, "model": "0123"})
    assert tables.read_result(path).test.accuracy == 0.5


def test_a_result_is_read_as_it_was_written(tmp_path):
    """Only metrics that do not apply are left out of the file."""
    path = tmp_path / "test.json"
    result = Evaluation(Numbers(**NUMBERS, tta_accuracy=0.6), "0123")
    tables.write_result(path, result)
    assert tables.read_result(path) == result
    assert files.read_json(path)["test"] == NUMBERS | {"tta_accuracy": 0.6}


def test_a_missing_table_is_one_line(tmp_path):
    """The error names the command that makes the table."""
    with pytest.raises(UserError, match=r"^table not found \(.*\): `dvc repro train` makes it$"):
        tables.read_history(tmp_path / "none.csv", (1,))


def refused(problem, path, stage, read, *arguments):
    with pytest.raises(UserError) as caught:
        read(path, *arguments)
    message = str(caught.value)
    assert problem in message and "\n" not in message
    assert message.endswith(f"({path}): `dvc repro --force {stage}` makes it again")
