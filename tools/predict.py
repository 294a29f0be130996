"""Classify picture files with a trained model.

    python -m tools.predict picture.jpg folder/
    python -m tools.predict --top 5 picture.jpg
    python -m tools.predict --csv folder/ > predictions.csv

Each picture goes through the preprocessing that the model was trained with: upright, transparency
on white, the centre square scaled to the image size of the network. Folders are searched with all
their subfolders; files in them that are not pictures are skipped with a note. Probabilities are
calibrated.

The CSV opens well in a spreadsheet: UTF-8 with a byte-order mark, one row per picture, with the
columns image, predicted, confidence, then the runners-up. A name that a spreadsheet would read as
a formula gets an apostrophe in front; --json leaves it unchanged.

From any folder: PYTHONPATH=/path/to/this/repository python -m tools.predict ...
"""

from cifar import stage  # isort: skip  first, to report errors of the imports below

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cifar import UserError, hardware, waiting
from cifar.data import pictures
from cifar.leftovers import hidden
from cifar.use import Classifier, Prediction

MODEL = Path(__file__).resolve().parents[1] / "models" / "model.safetensors"
IN_MEMORY = 64  # files read at once: photographs have several megabytes each
LARGE = 4  # a note says that details are lost in pictures this many times as large as the network's
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet reads a text that starts so as a formula


@dataclass
class Files:
    """The files to classify, and the problems found with them.

    Attributes:
        paths: in order.
        named: the paths on the command line, as opposed to files found in a folder.
        unreadable: maps the path of each file that could not be read to the reason.
        large: pictures far larger than the network's images.
    """

    paths: list[Path]
    named: set[Path]
    unreadable: dict[Path, str] = field(default_factory=dict)
    large: list[Path] = field(default_factory=list)


def main() -> None:
    options = arguments()
    files = find(options.paths)
    model = Classifier(options.model, options.device)
    hardware.set_threads(0)
    waiting.watch(model.device)
    top = min(options.top, len(model.classes))
    write = write_json if options.json else write_csv if options.csv else write_lines
    first_frame = options.on_animated == "first"
    write(predict(model, files, first_frame), files, top)
    report(files, model.model.dataset.image_size)


def arguments() -> argparse.Namespace:
    parser = stage.parser(__doc__)
    add = parser.add_argument
    add("paths", nargs="+", type=Path, metavar="PATH", help="picture files, or folders of them")
    add("--model", type=Path, default=MODEL, help="model file (default: this repository's)")
    add("--device", default="auto", help="auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:1, mps")
    add("--top", type=int, default=3, metavar="K", help="classes per picture (default: 3)")
    add(
        "--on-animated",
        choices=("error", "first"),
        default="error",
        help="what to do with animations and multi-page documents: treat them as unreadable, or "
        "classify their first frame (default: %(default)s)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print CSV, one row per picture")
    form.add_argument("--json", action="store_true", help="print JSON, with the unreadable files")
    options = parser.parse_args()
    if options.top < 1:
        raise UserError(f"--top {options.top} is too small (command line): use 1 or more")
    return options


def find(given: list[Path]) -> Files:
    """The given files, and the files in the given folders and their subfolders, sorted.

    Hidden files are left out.

    Raises:
        UserError: a path does not exist, or there are no files at all.
    """
    paths: list[Path] = []
    for path in given:
        if not path.exists():
            raise UserError(
                f"no such file or folder ({path}): pass pictures or folders of pictures"
            )
        inside = sorted(path.rglob("*")) if path.is_dir() else []
        visible = (p for p in inside if not hidden(p.relative_to(path).parts))
        paths += [p for p in visible if p.is_file()] if path.is_dir() else [path]
    if not paths:
        raise UserError(f"no files found ({given[0]}): pass pictures or folders of pictures")
    return Files(paths, set(given))


def predict(
    model: Classifier, files: Files, first_frame: bool = False
) -> Iterator[tuple[Path, Prediction]]:
    """Yield a prediction for each picture, computed in batches; note problems in `files`.

    Args:
        first_frame: classify animations and multi-page documents by their first frame, instead
            of treating them as unreadable.
    """
    dataset = model.model.dataset
    count = min(model.batch_size, IN_MEMORY)
    for start in range(0, len(files.paths), count):
        contents = read(files, start, count)
        paths = list(contents)
        pixels, problems = pictures.decode_all(
            list(contents.values()), dataset.image_size, dataset.channels, first_frame
        )
        files.unreadable |= {paths[i]: problem for i, problem in problems.items()}
        good = [i for i in range(len(paths)) if i not in problems]
        for i, prediction in zip(good, model.classify(pixels[good]) if good else (), strict=True):
            if pictures.shorter_side(contents[paths[i]]) >= LARGE * dataset.image_size:
                files.large.append(paths[i])
            yield paths[i], prediction


def read(files: Files, start: int, count: int) -> dict[Path, bytes]:
    """Maps the paths of the next files to their contents; files that cannot be opened are noted."""
    contents = {}
    for path in files.paths[start : start + count]:
        try:
            contents[path] = path.read_bytes()
        except OSError as error:
            files.unreadable[path] = error.strerror or str(error)
    return contents


def write_lines(predictions: Iterator[tuple[Path, Prediction]], files: Files, top: int) -> None:
    """One line per picture: 'cat.jpg: cat 93.1% (dog 5.2%, fox 1.0%)'."""
    for path, prediction in predictions:
        likely = [f"{name} {p:.1%}" for name, p in ranked(prediction, top)]
        others = f" ({', '.join(likely[1:])})" if likely[1:] else ""
        print(f"{path}: {likely[0]}{others}", flush=True)


def write_csv(predictions: Iterator[tuple[Path, Prediction]], files: Files, top: int) -> None:
    """One row per picture: image, predicted, confidence, predicted_2, confidence_2 and so on."""
    ranks = [f"{part}_{rank}" for rank in range(2, top + 1) for part in ("predicted", "confidence")]
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    sys.stdout.write("\ufeff")  # without it, Excel assumes another encoding
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["image", "predicted", "confidence", *ranks])
    for path, prediction in predictions:
        cells = [(harmless(name), f"{p:.4f}") for name, p in ranked(prediction, top)]
        writer.writerow([harmless(str(path)), *(cell for pair in cells for cell in pair)])


def harmless(text: str) -> str:
    """The text, with an apostrophe in front if a spreadsheet would read it as a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


def write_json(predictions: Iterator[tuple[Path, Prediction]], files: Files, top: int) -> None:
    rows = [
        {
            "image": str(path),
            "classes": [{"class": name, "probability": p} for name, p in ranked(prediction, top)],
        }
        for path, prediction in predictions
    ]
    unreadable = {str(path): problem for path, problem in files.unreadable.items()}
    print(json.dumps({"predictions": rows, "unreadable": unreadable}, indent=2))


def ranked(prediction: Prediction, top: int) -> list[tuple[str, float]]:
    """The `top` most likely classes and their probabilities."""
    return list(prediction.probabilities.items())[:top]


def report(files: Files, size: int) -> None:
    """Print notes about large and unreadable pictures on stderr.

    Raises:
        UserError: a file on the command line could not be read, or no file at all.
    """
    if files.large:
        others = f" and {len(files.large) - 1} more" if len(files.large) > 1 else ""
        note(
            f"note: {files.large[0]}{others}: far larger than the {size}x{size} pixels that the "
            "network sees; small details are lost"
        )
    for path, problem in files.unreadable.items():
        note(f"note: skipped {path}: {problem}")
    failed = [path for path in files.unreadable if path in files.named]
    if failed:
        count = stage.plural(len(failed), "named file")
        raise UserError(f"{count} could not be read (listed above): fix or omit them")
    if len(files.unreadable) == len(files.paths):
        raise UserError("none of these files is a picture (listed above): pass pictures")


def note(text: str) -> None:
    """Print a line on stderr; names that are not text are escaped."""
    print(text.encode(errors="backslashreplace").decode(), file=sys.stderr)


if __name__ == "__main__":
    stage.run(main)
