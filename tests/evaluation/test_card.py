"""The model card: the model, its metrics with intervals, its limits and its provenance."""

from dataclasses import replace

import modelfile
import pytest

from cifar.evaluation import card
from cifar.evaluation.metrics import ClassResult
from cifar.evaluation.tables import Numbers

MODEL = modelfile.record(channels=1, classes=("cat", "dog"), members=2, image_size=8)
NUMBERS = Numbers(
    accuracy=0.75,
    accuracy_low=0.5,
    accuracy_high=0.9,
    balanced_accuracy=0.7,
    macro_f1=0.65,
    loss=0.4321,
    calibrated_loss=0.3,
    calibration_error=0.123,
    raw_calibration_error=0.2,
)
CLASSES = [ClassResult("cat", 0.9, 10, 0.6, 0.98), ClassResult("dog", 0.6, 10, 0.3, 0.83)]


def test_the_card_is_complete():
    """It has size, metrics with intervals, the lowest classes first, versions and parameters."""
    text = card.text(MODEL, NUMBERS, CLASSES)
    for part in (
        "# vgg on pets",
        f"2 networks `vgg` with {2 * MODEL.parameters:,} parameters",
        "Input: grey images of 8x8 pixels. Output: one of 2 classes: cat, dog.",
        "| on 20 test images | value | 95 % interval |",
        "| accuracy | 75.00% | 50.00% to 90.00% |",
        "| calibration error, before the temperature | 20.0 points | |",
        "| calibration error | 12.3 points | |",
        "cpu, AVX512, 2 CPU threads, with numpy 2.4, torch 2.14",
        "Seed 7.",
        "| backbone |  |\n| lr | 0.1 |",
        "| data/x.npy | `abc` |",
        "## Limits",
    ):
        assert part in text, part
    assert text.index("accuracy of dog") < text.index("accuracy of cat")


def test_unequal_classes_have_their_means():
    """Balanced accuracy and F1 are shown if a class has far more images than another."""
    assert "balanced" not in card.text(MODEL, NUMBERS, CLASSES)
    assert not card.unequal([10, 14]) and card.unequal([10, 15])
    unequal = [CLASSES[0], CLASSES[1]._replace(images=5)]
    text = card.text(MODEL, NUMBERS, unequal)
    assert "| balanced accuracy | 70.00% | |" in text and "| macro F1 | 65.00% | |" in text


def test_one_thread_is_one_thread():
    """One thread and one network are in the singular."""
    provenance = replace(MODEL.provenance, threads=1)
    model = replace(MODEL, provenance=provenance, ensemble=1, epochs=(1,))
    text = card.text(model, NUMBERS, CLASSES)
    assert "1 CPU thread, " in text and "One network `vgg`" in text


def test_a_class_without_test_images_is_not_among_the_lowest():
    """Its accuracy was not measured."""
    text = card.text(MODEL, NUMBERS, [ClassResult("none", 0.0, 0, 0.0, 1.0), *CLASSES])
    assert "accuracy of dog" in text and "accuracy of none" not in text


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ("a|b", r"a\|b"),
        ("<img>", r"\<img>"),
        ("`c\\", r"\`c\\"),
        ("$a_b$", r"\$a\_b\$"),
        ("*x*", r"\*x\*"),
        ("[x](y)", r"\[x\](y)"),
        ("a&lt;", r"a\&lt;"),
    ],
)
def test_a_class_name_is_text(name, escaped):
    """Characters with a meaning in Markdown are escaped, so a table row keeps its three cells."""
    model = modelfile.record(classes=(name, "dog"))
    text = card.text(model, NUMBERS, [CLASSES[0]._replace(name=name), CLASSES[1]])
    assert f"Output: one of 2 classes: {escaped}, dog." in text
    assert f"| accuracy of {escaped} (among" in text
