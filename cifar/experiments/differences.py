"""Describe in one line how two versions of an output differ."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from PIL import Image

from cifar import UserError, files, model
from cifar.experiments.table import flatten

LONG = 60  # characters; a longer value is shortened
MISSING = "missing"  # stands for a value that one of them does not have


def describe(recorded: Path, made: Path) -> str:
    """Describe the first difference, and how much differs in all.

    Args:
        recorded: a file or a folder.
        made: its new version.
    """
    if not made.exists():
        return "not made"
    if recorded.is_dir() or made.is_dir():
        return folders(recorded, made)
    try:
        return KINDS.get(recorded.suffix, content)(recorded, made)
    except Exception:  # noqa: BLE001  a damaged file raises almost anything
        return content(recorded, made)  # one of them is damaged


def folders(recorded: Path, made: Path) -> str:
    a, b = (
        {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
        for path in (recorded, made)
    )
    names = sorted(a | b)
    differing = [
        name
        for name in names
        if name not in a & b or (recorded / name).read_bytes() != (made / name).read_bytes()
    ]
    if not differing:
        return "different bytes"
    first = differing[0]
    text = describe(recorded / first, made / first) if first in a else "not recorded"
    return f"{counted(differing, names, 'file')}, first {first}: {text}"


def tensors(recorded: Path, made: Path) -> str:
    a, b = (safetensors.numpy.load(path.read_bytes()) for path in (recorded, made))
    records = [record(path) for path in (recorded, made)]
    names = in_order_of_use(sorted(a | b), records[0])
    gaps = {name: gap(a.get(name), b.get(name)) for name in names}
    differing = [name for name in names if gaps[name]]
    if not differing:
        return f"the same tensors; in the record, {values(*records)}"
    first = differing[0]
    if any(isinstance(size, str) for size in gaps.values()):
        return f"{counted(differing, names, 'tensor')}, first {first}: {gaps[first]}"
    most = max(differing, key=lambda name: gaps[name])
    text = f"{counted(differing, names, 'tensor')}, first {first} by up to {gaps[first]:.2g}"
    return text if most == first else f"{text}, most {most} by up to {gaps[most]:.2g}"


def gap(a: np.ndarray | None, b: np.ndarray | None) -> Any:
    """The largest difference between two tensors, 0 if equal; otherwise what differs, in words."""
    if a is None or b is None:
        return "not made" if b is None else "not recorded"
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"{b.dtype} {list(b.shape)}, recorded {a.dtype} {list(a.shape)}"
    if a.tobytes() == b.tobytes():
        return 0
    size = float(np.abs(b.astype(np.float64) - a.astype(np.float64)).max(initial=0))
    return size if np.isfinite(size) and size else "different bits"


def in_order_of_use(names: list[str], record: Any) -> list[str]:
    """Sort the names of tensors by the order of their layers in the record; unknown ones last."""
    positions = {layer["name"]: number for number, layer in enumerate(record.get("layers", []))}

    def number(name: str) -> int:
        layer = name.rpartition(".")[0]
        return positions.get(layer, positions.get(layer.partition(".")[2], len(positions)))

    return sorted(names, key=number)


def record(path: Path) -> dict[str, Any]:
    """The record in a model file of any version; empty if it cannot be read."""
    try:
        text = model.read_metadata(path.read_bytes(), path)["model"]
        return dict(json.loads(text)["model"])
    except (UserError, OSError, LookupError, TypeError, ValueError):
        return {}


def documents(recorded: Path, made: Path) -> str:
    return values(*(json.loads(path.read_text("utf-8")) for path in (recorded, made)))


def values(recorded: Any, made: Any) -> str:
    """Describe how two nested mappings differ."""
    a, b = (dict(flatten(tree)) for tree in (recorded, made))
    names = list(a | b)
    differing = [name for name in names if a.get(name, MISSING) != b.get(name, MISSING)]
    if not differing:
        return "the same values, different bytes"
    # A number tells more than the checksum of a model, which differs whenever a number does.
    first = min(differing, key=lambda name: not isinstance(b.get(name), float))
    old, new = a.get(first, MISSING), b.get(first, MISSING)
    text = (
        f"{counted(differing, names, 'value')}, first {first}: {short(new)}, recorded {short(old)}"
    )
    if isinstance(old, float) and isinstance(new, float):
        return f"{text} ({new - old:+.3g})"
    return text


def rows(recorded: Path, made: Path) -> str:
    a, b = (list(csv.reader(path.read_text("utf-8").splitlines())) for path in (recorded, made))
    if a[0] != b[0] or len(a) != len(b):
        return f"{len(b) - 1} rows of {','.join(b[0])}, recorded {len(a) - 1} of {','.join(a[0])}"
    differing = [number for number in range(1, len(a)) if a[number] != b[number]]
    if not differing:
        return "the same rows, different bytes"
    first = differing[0]
    pair = f"{short(','.join(b[first]))}, recorded {short(','.join(a[first]))}"
    text = f"{counted(differing, a[1:], 'row')}, first row {first}: {pair}"
    if "predicted" not in a[0]:
        return text
    column = a[0].index("predicted")
    others = sum(a[number][column] != b[number][column] for number in differing)
    return f"{text}; {others} with a different predicted class"


def arrays(recorded: Path, made: Path) -> str:
    a, b = files.read_array(recorded), files.read_array(made)
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"{b.dtype} {list(b.shape)}, recorded {a.dtype} {list(a.shape)}"
    differing = np.asarray(a != b)
    if not differing.any():
        return "the same values, different bytes"
    index = tuple(int(number) for number in np.argwhere(differing)[0])
    text = f"{int(differing.sum()):,} of {a.size:,} values differ, first at {list(index)}"
    return f"{text}: {short(b[index])}, recorded {short(a[index])}"


def pixels(recorded: Path, made: Path) -> str:
    a, b = (np.asarray(Image.open(path).convert("RGBA")) for path in (recorded, made))
    if a.shape != b.shape:
        return f"{b.shape[1]}x{b.shape[0]} pixels, recorded {a.shape[1]}x{a.shape[0]}"
    differing = (a != b).any(axis=2)
    if not differing.any():
        return "the same pixels, different bytes"
    return f"{int(differing.sum()):,} of {differing.size:,} pixels differ"


def content(recorded: Path, made: Path) -> str:
    """Describe the first line that differs in a text, or the first byte in any other file."""
    a, b = recorded.read_bytes(), made.read_bytes()
    first = next(
        (number for number, (x, y) in enumerate(zip(a, b, strict=False)) if x != y),
        min(len(a), len(b)),
    )
    try:
        line = a[:first].count(b"\n")
        old, new = (text.decode().splitlines()[line].strip() for text in (a, b))
    except (UnicodeDecodeError, IndexError):
        return f"first at byte {first:,}; {len(b):,} bytes, recorded {len(a):,}"
    return f"first in line {line + 1}: {short(new)}, recorded {short(old)}"


def counted(differing: Sequence[Any], everything: Sequence[Any], noun: str) -> str:
    """A text such as '1 of 4 rows differs' or '2 of 4 rows differ'."""
    verb = "differs" if len(differing) == 1 else "differ"
    plural = noun if len(everything) == 1 else f"{noun}s"
    return f"{len(differing):,} of {len(everything):,} {plural} {verb}"


def short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= LONG else f"{text[: LONG - 1]}…"


KINDS: dict[str, Callable[[Path, Path], str]] = {
    ".safetensors": tensors,
    ".json": documents,
    ".csv": rows,
    ".npy": arrays,
    ".png": pixels,
}
