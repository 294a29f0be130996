"""Writes the model card: what the model is, how good it is, its limits, and its provenance.

The card contains no time and no path.
"""

import re
from collections.abc import Sequence

from cifar import stage
from cifar.evaluation.metrics import ClassResult
from cifar.evaluation.tables import Numbers
from cifar.model import Model, Provenance

UNEQUAL = 1.5  # ratio of the largest to the smallest class

LIMITS = """\
- It always predicts one of its classes, even for an image of something else.
- The interval covers only the random choice of the test images. Images from other sources were \
not measured.
- Larger images are cropped to the centre square and reduced to the network's size, so small \
details are lost.
"""


def text(model: Model, numbers: Numbers, classes: list[ClassResult]) -> str:
    """The card as Markdown.

    Args:
        numbers: metrics of the test images, as in metrics/test.json.
        classes: one row per class.
    """
    lines = [
        *summary(model),
        *result(numbers, classes),
        "## Limits",
        "",
        LIMITS,
        *origin(model.provenance),
    ]
    return "\n".join(lines) + "\n"


def summary(model: Model) -> list[str]:
    """What the model is."""
    dataset = model.dataset
    networks = f"{model.ensemble} networks" if model.ensemble > 1 else "One network"
    colour = "colour" if dataset.channels == 3 else "grey"
    return [
        f"# {model.network} on {dataset.name}",
        "",
        f"{networks} `{model.network}` with {model.ensemble * model.parameters:,} parameters. "
        f"Input: {colour} images of {dataset.image_size}x{dataset.image_size} pixels. "
        f"Output: one of {len(dataset.classes)} classes: "
        f"{', '.join(map(escape, dataset.classes))}.",
        "",
    ]


def result(numbers: Numbers, classes: list[ClassResult]) -> list[str]:
    """How good the model is, including the three classes of lowest accuracy."""
    images = sum(row.images for row in classes)
    lowest = sorted((row for row in classes if row.images), key=lambda row: row.accuracy)[:3]
    accuracy = f"{numbers.accuracy:.2%}"
    raw_error = points(numbers.raw_calibration_error)
    interval = f"{numbers.accuracy_low:.2%} to {numbers.accuracy_high:.2%}"
    return [
        "## Result",
        "",
        f"| on {images:,} test images | value | 95 % interval |",
        "|---|---|---|",
        f"| accuracy | {accuracy} | {interval} |",
        *(means(numbers) if unequal([row.images for row in classes]) else ()),
        f"| cross-entropy loss | {numbers.loss:.3f} | |",
        f"| loss of the calibrated probabilities | {numbers.calibrated_loss:.3f} | |",
        f"| calibration error, before the temperature | {raw_error} | |",
        f"| calibration error | {points(numbers.calibration_error)} | |",
        *(
            f"| accuracy of {escape(row.name)} (among the lowest) | {row.accuracy:.2%} "
            f"| {row.low:.2%} to {row.high:.2%} |"
            for row in lowest
        ),
        "",
    ]


def unequal(images: Sequence[int]) -> bool:
    """Whether the classes differ so much in size that accuracy alone misleads."""
    return max(images) >= UNEQUAL * min(images)


def means(numbers: Numbers) -> tuple[str, str]:
    """The rows of the means over classes, in which small classes count as much as large ones."""
    return (
        f"| balanced accuracy | {numbers.balanced_accuracy:.2%} | |",
        f"| macro F1 | {numbers.macro_f1:.2%} | |",
    )


def points(error: float) -> str:
    return f"{100 * error:.1f} points"


def escape(name: str) -> str:
    """Escape a class name, so that Markdown shows it as it is, even in a table."""
    return re.sub(r"([\\`|<$*_&\[\]~#])", r"\\\1", name)


def origin(provenance: Provenance) -> list[str]:
    """What made the model."""
    versions = sorted(provenance.versions.items())
    libraries = ", ".join(f"{name} {version}" for name, version in versions)
    train = sorted(provenance.parameters.train.items())
    return [
        "## Provenance",
        "",
        f"Trained on {provenance.device}, {stage.plural(provenance.threads, 'CPU thread')}, "
        f"with {libraries}.",
        f"Seed {provenance.parameters.seed}.",
        "The model file has the same record; models/model.json lists the files of code.",
        "",
        "| parameter of train | value |",
        "|---|---|",
        *(f"| {key} | {'' if value is None else value} |" for key, value in train),
        "",
        "| data | sha256 |",
        "|---|---|",
        *(f"| {file} | `{checksum}` |" for file, checksum in sorted(provenance.data.items())),
    ]
