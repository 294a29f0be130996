"""The model card: what the model is, how good, where it ends, what made it.

No time and no path is in it.
"""

import re
from collections.abc import Sequence

from cifar import stage
from cifar.evaluation.metrics import ClassResult
from cifar.evaluation.tables import Numbers
from cifar.model import Model, Provenance

UNEQUAL = 1.5  # times as many images

LIMITS = """\
- It always predicts one of its classes, even for an image of something else.
- The interval covers chance in the choice of the test images. Images from another source were not \
measured.
- Larger images are reduced to the centre square at the network's size. Small details are lost.
"""


def text(model: Model, numbers: Numbers, classes: list[ClassResult]) -> str:
    """The card as Markdown.

    Args:
        numbers: of the test images, as in metrics/test.json.
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
        f"{networks} `{model.network}` with {model.ensemble * model.parameters:,} parameters. From "
        f"an image of {dataset.image_size}x{dataset.image_size} pixels, {colour}, to one of "
        f"{len(dataset.classes)} classes: {', '.join(map(escape, dataset.classes))}.",
        "",
    ]


def result(numbers: Numbers, classes: list[ClassResult]) -> list[str]:
    """How good it is, with the classes of the lowest accuracy."""
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
    """Whether a class has so many more images than another that accuracy alone misleads."""
    return max(images) >= UNEQUAL * min(images)


def means(numbers: Numbers) -> tuple[str, str]:
    """The rows of the means over the classes, which differ if the classes are unequal."""
    return (
        f"| balanced accuracy | {numbers.balanced_accuracy:.2%} | |",
        f"| macro F1 | {numbers.macro_f1:.2%} | |",
    )


def points(error: float) -> str:
    return f"{100 * error:.1f} points"


def escape(name: str) -> str:
    """A class name that Markdown takes as it is, in a table too."""
    return re.sub(r"([\\`|<$*_&\[\]~#])", r"\\\1", name)


def origin(provenance: Provenance) -> list[str]:
    """What made it."""
    versions = sorted(provenance.versions.items())
    libraries = ", ".join(f"{name} {version}" for name, version in versions)
    train = sorted(provenance.parameters.train.items())
    return [
        "## Provenance",
        "",
        f"Trained on {provenance.device}, {stage.plural(provenance.threads, 'CPU thread')}, "
        f"with {libraries}.",
        f"Seed {provenance.parameters.seed}.",
        "The model file holds the same; models/model.json names each file of code.",
        "",
        "| parameter of train | value |",
        "|---|---|",
        *(f"| {key} | {'' if value is None else value} |" for key, value in train),
        "",
        "| data | sha256 |",
        "|---|---|",
        *(f"| {file} | `{checksum}` |" for file, checksum in sorted(provenance.data.items())),
    ]
