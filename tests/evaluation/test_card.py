"""The model card: what the model is, its numbers with their intervals, its limits, what made it."""

from cifar.evaluation import card

MODEL = {"model": "vgg", "ensemble": 2, "image_size": 8, "channels": 1, "classes": ["cat", "dog"]}
MODEL |= {"layers": [["0", "Conv2d", "2x8x8", 20], ["1", "Linear", "2", 980]]}
MADE_BY = {"device": "cpu, AVX512", "threads": 2, "versions": {"torch": "2.14", "numpy": "2.4"}}
MADE_BY |= {
    "parameters": {"seed": 7, "train": {"lr": 0.1, "backbone": None}},
    "data": {"data/x.npy": "abc"},
}
NUMBERS = {"accuracy": 0.75, "accuracy_low": 0.5, "accuracy_high": 0.9, "loss": 0.4321}
CLASSES = [("cat", 0.9, 10, 0.6, 0.98), ("dog", 0.6, 10, 0.3, 0.83)]


def test_the_card_has_every_fact():
    """Size, data, numbers with intervals, the lowest classes first, versions, parameters and checksums are in it."""
    text = card.text("pets", MODEL | {"made_by": MADE_BY}, NUMBERS, CLASSES, 20, 0.123)
    for part in (
        "# vgg on pets",
        "2 networks `vgg` with 2,000 parameters; from an image of 8x8 pixels, grey, to one of 2 classes: cat, dog.",
        "| accuracy | 75.00% | 50.00% to 90.00% |",
        "| expected calibration error | 12.3 points | |",
        "cpu, AVX512, 2 CPU threads, with numpy 2.4, torch 2.14",
        "Seed 7.",
        "| backbone |  |\n| lr | 0.1 |",
        "| data/x.npy | `abc` |",
        "## Limits",
    ):
        assert part in text, part
    assert text.index("accuracy of dog") < text.index("accuracy of cat")
    assert "Not recorded" in card.text("pets", MODEL, NUMBERS, CLASSES, 20, 0.1)


def test_a_class_without_test_images_is_not_among_the_lowest():
    """Nothing was measured of it."""
    classes = [("none", 0.0, 0, 0.0, 1.0), *CLASSES]
    text = card.text("pets", MODEL, NUMBERS, classes, 20, 0.1)
    assert "accuracy of dog" in text and "accuracy of none" not in text


def test_a_class_may_be_called_as_it_likes():
    """Names that mean something in Markdown are escaped: a table's row keeps its three cells."""
    classes = [
        ("a|b", 0.5, 10, 0.2, 0.8),
        ("<img>", 0.6, 10, 0.3, 0.83),
        ("`c\\", 0.7, 10, 0.4, 0.9),
    ]
    text = card.text(
        "pets", MODEL | {"classes": [row[0] for row in classes]}, NUMBERS, classes, 20, 0.1
    )
    assert r"to one of 3 classes: a\|b, \<img>, \`c\\." in text
    for name in (r"a\|b", r"\<img>", r"\`c\\"):
        assert f"| accuracy of {name} (among" in text
