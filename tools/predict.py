"""Classify picture files with a trained model.

    python -m tools.predict picture.jpg folder/
    python -m tools.predict --csv --model other.safetensors folder/ > predictions.csv

Each picture goes through the preprocessing that the model was trained with: upright, transparency on white,
the centre square scaled to the size of the network. Folders are searched to the bottom. From any folder:
PYTHONPATH=/path/to/this/repository python -m tools.predict …
"""

import argparse
import csv
import json
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cifar import UserError, hardware, networks, stage, tensors
from cifar.data import pictures
from cifar.evaluation import metrics
from cifar.training import provenance

MODEL = Path(__file__).resolve().parents[1] / "models" / "model.safetensors"
LARGE = 4  # a picture is far larger than what the network sees from so many times its side on


@dataclass(frozen=True)
class Prediction:
    path: str
    side: int  # pixels, the shorter one of the file
    choices: list[tuple[str, float]]  # classes and their probabilities, the likeliest first


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m tools.predict", description=__doc__, formatter_class=style
    )
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="picture files, and folders of them"
    )
    parser.add_argument(
        "--model", type=Path, default=MODEL, help="model file (default: this repository's)"
    )
    parser.add_argument(
        "--device",
        default="auto",
        help="auto (CUDA, else MPS, else CPU) | cpu | cuda | cuda:1 | mps",
    )
    parser.add_argument(
        "--batch-size", type=int, default=200, help="pictures per step: memory, not results"
    )
    parser.add_argument(
        "--top", type=int, default=3, help="how many classes per picture (default: 3)"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="as CSV, one row a picture")
    form.add_argument("--json", action="store_true", help="as JSON, with what could not be read")
    options = parser.parse_args()
    if options.batch_size < 1 or options.top < 1:
        raise UserError(
            "--batch-size and --top are at least 1 (command line): give a larger number"
        )
    place = hardware.pick(options.device, "--device")
    hardware.set_threads(0)
    nets, description = networks.load(options.model)
    provenance.check_network(options.model, description)
    paths = find(options.paths)
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names that are not text
    unreadable: dict[str, str] = {}
    classify = classifier(nets, description, place)
    found = predict(paths, classify, description, options.batch_size, unreadable)
    top = min(options.top, len(description["classes"]))
    write = write_json if options.json else write_csv if options.csv else write_table
    large = write(found, top, LARGE * description["image_size"], unreadable)
    report(large, description["image_size"], unreadable, len(paths))


def find(given: list[Path]) -> list[Path]:
    """The files among `given` and, sorted, those anywhere in its folders, without hidden ones.

    Raises:
        UserError: a path that does not exist, or nothing found.
    """
    found: list[Path] = []
    for path in given:
        if not path.exists():
            raise UserError(f"no such file or folder ({path}): name pictures, or folders of them")
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        found += [
            p
            for p in inside
            if p.is_file() and (p == path or not pictures.hidden(p.relative_to(path).parts))
        ]
    if not found:
        raise UserError(f"no files in there ({given[0]}): name pictures, or folders of them")
    return found


def classifier(
    nets: list[Any], description: dict[str, Any], place: torch.device
) -> Callable[[Tensor], Tensor]:
    """From (N, H, W, C) uint8 pixels to (N, classes) probabilities on the CPU, as the evaluate stage has them."""
    normalize = tensors.normalizer(description["mean"], description["std"], place)
    for net in nets:
        net.to(place, memory_format=torch.channels_last)

    def classify(pixels: Tensor) -> Tensor:
        members = [metrics.predict(net, pixels.to(place), normalize, len(pixels)) for net in nets]
        return metrics.average(members).softmax(1).cpu()

    return classify


def predict(
    paths: list[Path],
    classify: Callable[[Tensor], Tensor],
    description: dict[str, Any],
    batch_size: int,
    unreadable: dict[str, str],
) -> Iterator[Prediction]:
    """A prediction for each picture, in batches; the others go into `unreadable` with the reason."""
    for start in range(0, len(paths), batch_size):
        names, contents = [], []
        for path in paths[start : start + batch_size]:
            try:
                contents.append(path.read_bytes())
                names.append(str(path))
            except OSError as error:
                unreadable[str(path)] = error.strerror or str(error)
        images, problems = pictures.decode_all(
            contents, description["image_size"], description["channels"]
        )
        unreadable |= {names[i]: problem for i, problem in problems.items()}
        if not (good := [i for i in range(len(names)) if i not in problems]):
            continue
        values, order = classify(torch.from_numpy(images[good])).sort(
            dim=1, descending=True, stable=True
        )
        for i, row, classes in zip(good, values.tolist(), order.tolist(), strict=True):
            choices = [
                (description["classes"][c], value) for c, value in zip(classes, row, strict=True)
            ]
            yield Prediction(names[i], pictures.shorter_side(contents[i]), choices)


def write_table(found: Iterator[Prediction], top: int, limit: int, _: dict[str, str]) -> list[str]:
    """One line a picture; returns the paths of the pictures that are far larger than what the network sees."""
    large = []
    for one in found:
        (name, value), *others = one.choices[:top]
        runners_up = ", ".join(f"{other} {share:.1%}" for other, share in others)
        print(f"{one.path}: {name} {value:.1%}{f' ({runners_up})' if others else ''}", flush=True)
        large += [one.path] if one.side >= limit else []
    return large


def write_csv(found: Iterator[Prediction], top: int, limit: int, _: dict[str, str]) -> list[str]:
    ranks = [f"{part}_{rank}" for rank in range(2, top + 1) for part in ("predicted", "confidence")]
    writer, large = csv.writer(sys.stdout, lineterminator="\n"), []
    writer.writerow(["image", "predicted", "confidence", *ranks])
    for one in found:
        writer.writerow(
            [
                one.path,
                *(cell for name, value in one.choices[:top] for cell in (name, f"{value:.4f}")),
            ]
        )
        large += [one.path] if one.side >= limit else []
    return large


def write_json(
    found: Iterator[Prediction], top: int, limit: int, unreadable: dict[str, str]
) -> list[str]:
    predictions = list(found)
    rows = [
        {
            "image": one.path,
            "classes": [{"class": name, "probability": value} for name, value in one.choices[:top]],
        }
        for one in predictions
    ]
    print(json.dumps({"predictions": rows, "unreadable": unreadable}, indent=2))
    return [one.path for one in predictions if one.side >= limit]


def report(large: list[str], size: int, unreadable: dict[str, str], count: int) -> None:
    """What a person should know, on stderr.

    Raises:
        UserError: some files are no pictures; they are listed before it.
    """
    if large:
        others = f" and {len(large) - 1} more" if len(large) > 1 else ""
        print(
            f"note: {large[0]}{others}: far larger than the {size}x{size} pixels that the network sees; the centre "
            "square was scaled down, and small things in it are lost",
            file=sys.stderr,
        )
    for path, problem in unreadable.items():
        print(f"{path}: {problem}".encode(errors="backslashreplace").decode(), file=sys.stderr)
    if unreadable:
        raise UserError(
            f"{len(unreadable)} of {count} files are no pictures (listed above): mend or omit them"
        )


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends this quietly
    stage.run(main)
