"""The model card: what the model is, how good, where it ends, what made it. No time and no path is in it."""

import re
from typing import Any

LIMITS = """\
- It answers with one of its classes for any picture, also for one that shows something else.
- The interval is that of chance in the choice of the test images; for pictures of another source nothing was measured.
- Larger pictures are scaled down to its size, the centre square of them; small things in them are lost.
"""


def text(
    name: str,
    model: dict[str, Any],
    numbers: dict[str, Any],
    classes: list[tuple[Any, ...]],
    images: int,
    error: float,
) -> str:
    """The card as Markdown.

    Args:
        name: of the data set.
        model: the description in the model file.
        numbers: of the test images, as `scoring.summary` gives them.
        classes: for each class its name, accuracy, number of test images, and the ends of the interval.
        images: how many test images there are.
        error: the expected calibration error, in [0, 1].
    """
    count = f"{model['ensemble']} networks" if model["ensemble"] > 1 else "One network"
    size = f"{model['image_size']}x{model['image_size']} pixels, {'colour' if model['channels'] == 3 else 'grey'}"
    parameters = model["ensemble"] * sum(row[3] for row in model["layers"])
    worst = sorted((row for row in classes if row[2]), key=lambda row: row[1])[:3]
    lines = [
        f"# {model['model']} on {name}",
        "",
        f"{count} `{model['model']}` with {parameters:,} parameters; from an image of {size}, to one of "
        f"{len(model['classes'])} classes: {', '.join(map(escape, model['classes']))}.",
        "",
        "## Result",
        "",
        f"| on {images:,} test images | value | 95 % interval |",
        "|---|---|---|",
        f"| accuracy | {numbers['accuracy']:.2%} | {numbers['accuracy_low']:.2%} to {numbers['accuracy_high']:.2%} |",
        f"| cross-entropy loss | {numbers['loss']:.3f} | |",
        f"| expected calibration error | {100 * error:.1f} points | |",
        *(
            f"| accuracy of {escape(row[0])} (among the lowest) | {row[1]:.2%} | {row[3]:.2%} to {row[4]:.2%} |"
            for row in worst
        ),
        "",
        "## Limits",
        "",
        LIMITS,
        "## Provenance",
        "",
        *provenance(model.get("made_by")),
    ]
    return "\n".join(lines) + "\n"


def escape(name: str) -> str:
    """A class name that Markdown takes as it is, in a table too."""
    return re.sub(r"([\\`|<])", r"\\\1", name)


def provenance(made_by: dict[str, Any] | None) -> list[str]:
    if not made_by:
        return ["Not recorded."]
    parameters = made_by["parameters"]
    versions = ", ".join(
        f"{name} {version}" for name, version in sorted(made_by["versions"].items())
    )
    return [
        f"Trained on {made_by['device']}, {made_by['threads']} CPU threads, with {versions}.",
        f"Seed {parameters['seed']}.",
        "The same facts and the names of all code files are in the model file, under `made_by`.",
        "",
        "| parameter of train | value |",
        "|---|---|",
        *(
            f"| {key} | {'' if value is None else value} |"
            for key, value in sorted(parameters["train"].items())
        ),
        "",
        "| data | sha256 |",
        "|---|---|",
        *(f"| {file} | `{checksum}` |" for file, checksum in sorted(made_by["data"].items())),
    ]
