"""Any bytes and names that a stranger may send are read, or refused in one line.

The short form tries a few examples, the same ones every time; the long form thousands.
"""

import io
import json
import pickle
import random
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sample import make, record

from cifar import UserError, files, model_file, params, yaml12
from cifar.data import archive, datasets, layout, names, pictures, records
from cifar.dataset import Dataset
from cifar.evaluation import card

pytestmark = [
    pytest.mark.hostile,
    pytest.mark.parametrize("examples", [40, pytest.param(1500, marks=pytest.mark.long)]),
]

PARTS = st.sampled_from(["train", "val", "test", "Train", "valid", "cat", "dog", "Dog", "images"])
COMPONENT = st.one_of(PARTS, st.text(max_size=4), st.sampled_from(["..", ".", "", "\\", "a\\b"]))
NAME = st.lists(COMPONENT, min_size=1, max_size=5).map("/".join)
RELATIVE = NAME.filter(lambda name: not name.startswith("/"))
PARAMS = Path(__file__).parent.parent / "params.yaml"
CONTENT = st.binary(max_size=40)

SCALAR = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6))
ANYTHING = st.recursive(
    SCALAR,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=5,
)


def check(
    examples: int, function: Callable[..., None], *strategies: st.SearchStrategy[Any]
) -> None:
    """Call the function with this many examples."""
    limits = settings(max_examples=examples, deadline=None, derandomize=True, database=None)
    limits(given(*strategies)(function))()


def one_line(error: Exception) -> None:
    assert str(error) and "\n" not in str(error)
    str(error).encode()


def damaged(whole: bytes, position: float, change: int, end: float) -> bytes:
    """The file with one byte changed and the end cut off."""
    content = bytearray(whole)
    content[int(position * (len(whole) - 1))] ^= change
    return bytes(content[: int(end * len(whole))])


def damages(wholes: list[bytes]) -> st.SearchStrategy[bytes]:
    """A strategy for each of the files with some damage."""
    end = st.one_of(st.just(1.0), st.floats(0, 1))
    return st.builds(damaged, st.sampled_from(wholes), st.floats(0, 1), st.integers(0, 255), end)


def make_tar(files: list[tuple[str, bytes]], mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, errors="surrogatepass") as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def make_zip(files: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in files:
            made.writestr(zipfile.ZipInfo(name or "x"), content)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_of_any_names(examples, tmp_path):
    """Members of any name are read under a plain name inside the archive, or refused."""

    folder = tmp_path / "inside"
    folder.mkdir()

    def read(files: list[tuple[str, bytes]], kind: str) -> None:
        path = folder / "archive"
        path.write_bytes(make_zip(files) if kind == "zip" else make_tar(files, kind))
        try:
            with archive.members(path, folder) as (members, read_member):
                for name, member in members.items():
                    assert not name.startswith("/")
                    assert ".." not in name.split("/")
                    assert len(read_member(name)) == member.size
        except UserError as error:
            one_line(error)
        assert [*tmp_path.iterdir(), *folder.iterdir()] == [folder, path]

    files = st.lists(st.tuples(NAME, CONTENT), max_size=6)
    check(examples, read, files, st.sampled_from(["zip", "w", "w:gz", "w:xz"]))


def test_archives_that_are_damaged(examples, tmp_path):
    """A tar or zip with a changed byte and a missing end is read or refused."""
    files = [("train/cat/1.png", b"cat" * 30), ("train/dog/ä.png", b"dog" * 30)]
    wholes = [make_zip(files), *(make_tar(files, mode) for mode in ("w", "w:gz", "w:bz2", "w:xz"))]

    def read(content: bytes) -> None:
        path = tmp_path / "archive"
        path.write_bytes(content)
        try:
            with archive.members(path, tmp_path) as (members, read_member):
                for name in members:
                    read_member(name)
        except UserError as error:
            one_line(error)

    check(examples, read, damages(wholes))


def test_layouts_of_any_names(examples):
    """Any names are recognised as parts and classes that can be written and shown, or refused."""

    def recognize(files: list[str]) -> None:
        try:
            found = layout.recognize(files, "x")
        except UserError as error:
            one_line(error)
            return
        assert set(found.sources.values()) <= set(files)
        assert len(set(found.sources.values())) == len(found.sources)
        assert len({names.folded(name) for name in found.classes}) == len(found.classes) >= 2
        for target in found.sources:
            part, class_name, file = target.split("/")
            assert part in ("train", "val", "test") and file
            names.check_class(class_name, "x")
            target.encode()

    check(examples, recognize, st.lists(RELATIVE, max_size=12))


def test_records_that_are_damaged(examples):
    """A pickled batch with a changed byte and a missing end is read or refused; no code runs."""
    batch = {
        b"data": np.zeros((2, 12), np.uint8),
        b"labels": [np.int64(1), 0],
        b"label_names": [b"cat", "dog"],
    }
    wholes = [pickle.dumps(batch, protocol) for protocol in (0, 2, 4, 5)]

    def read(content: bytes) -> None:
        for function in (
            lambda: records.read_python(content, "x", "labels", (2, 2, 3)),
            lambda: records.read_classes(content, "x", datasets.CIFAR10.python),
            lambda: records.read_binary(content, "x", 1, (2, 2, 3)),
            lambda: records.read_classes(content, "x", datasets.CIFAR10.binary),
        ):
            try:
                function()
            except UserError as error:
                one_line(error)

    check(examples, read, damages(wholes))


def test_records_of_anything(examples):
    """Pickles of any values under the right keys are read as numbers, or refused."""
    number = st.one_of(st.integers(), st.floats(), st.none(), st.text(max_size=3))
    values = st.one_of(number, st.lists(number, max_size=3), st.lists(st.lists(number)))

    def read(pixels: Any, labels: Any) -> None:
        content = pickle.dumps({"data": pixels, "labels": labels, "label_names": labels})
        for function in (
            lambda: records.read_python(content, "x", "labels", (2, 2, 3)),
            lambda: records.read_classes(content, "x", datasets.CIFAR10.python),
        ):
            try:
                function()
            except UserError as error:
                one_line(error)

    check(examples, read, st.one_of(st.just(np.zeros((1, 12), np.uint8)), values), values)


def test_pictures_that_are_damaged(examples):
    """A picture with a changed byte and a missing end gives pixels or a short reason."""
    image = Image.fromarray(np.arange(300, dtype=np.uint16).astype(np.uint8).reshape(10, 10, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    wholes = []
    for form in ("PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP", "PPM", "JPEG2000"):
        buffer = io.BytesIO()
        image.save(buffer, form, **({"exif": exif} if form in ("PNG", "JPEG", "WEBP") else {}))
        wholes.append(buffer.getvalue())

    def read(content: bytes) -> None:
        try:
            pixels = pictures.decode(content, 8)
        except ValueError as error:
            one_line(error)
        else:
            assert pixels.shape == (8, 8, 3)

    check(examples, read, damages(wholes))


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in nested mappings and lists, including inner ones."""
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree)
    found = []
    for key, value in entries:
        found.append((*path, key))
        if isinstance(value, dict | list):
            found += leaves(value, (*path, key))
    return found


def put(tree: Any, path: tuple[Any, ...], value: Any) -> None:
    """Replace the value at this path."""
    for key in path[:-1]:
        tree = tree[key]
    tree[path[-1]] = value


def test_parameters_of_anything(examples):
    """params.yaml with any value in any position is accepted or refused."""
    committed = yaml12.read(PARAMS)

    def read(path: tuple[Any, ...], value: Any) -> None:
        values = json.loads(json.dumps(committed))
        put(values, path, value)
        try:
            params.check(values)
        except UserError as error:
            one_line(error)

    check(examples, read, st.sampled_from(leaves(committed)), ANYTHING)


def test_parameters_of_any_text(examples, tmp_path):
    """params.yaml with any bytes, or with text inserted anywhere, is read or refused."""
    whole = PARAMS.read_bytes()
    signs = st.text("&*!|>%@`'\"#:-?{}[],~ \n\tae01.", max_size=8).map(str.encode)
    piece = st.one_of(signs, st.binary(max_size=8))

    def insert(piece: bytes, position: float, length: int) -> bytes:
        start = int(position * len(whole))
        return whole[:start] + piece + whole[start + length :]

    def read(content: bytes) -> None:
        path = tmp_path / "params.yaml"
        path.write_bytes(content)
        try:
            params.check(params.read(path), path)
        except UserError as error:
            one_line(error)

    edited = st.builds(insert, piece, st.floats(0, 1), st.integers(0, 20))
    check(examples, read, st.one_of(edited, st.binary(max_size=40), signs))


def test_model_files_of_any_record(examples, tmp_path):
    """A model file with a valid checksum and any value in its record is loaded or refused."""
    state = make(0)[0].state_dict()
    honest = json.loads(json.dumps(asdict(record())))

    def read(path: tuple[Any, ...], value: Any) -> None:
        content = json.loads(json.dumps(honest))
        put(content, path, value)
        text = json.dumps({"model": content, "sha256": model_file.checksum(state, content)})
        (tmp_path / "w").write_bytes(safetensors.torch.save(state, {"model": text}))
        try:
            model_file.load(tmp_path / "w")
        except UserError as error:
            one_line(error)

    check(examples, read, st.sampled_from(leaves(honest)), ANYTHING)


LIES = [
    *(None, {}, [], "", "x", 5, -1, 0, 1e300, float("nan"), True, 10**7, 10**400, "y" * 10**5),
    *([[]], {"a": {}}, ["a", "b"], "\x1b[31m", "\ud800", 4096, DELETE := object()),
]


def test_model_files_that_lie(examples, tmp_path):
    """A record with a value replaced, removed or added is refused, or gives a model card."""
    state = make(0)[0].state_dict()
    honest = json.loads(json.dumps(asdict(record())))
    added = [(*path, "new") for path in [(), *leaves(honest)] if isinstance(at(honest, path), dict)]
    cases = [(path, lie) for path in leaves(honest) + added for lie in LIES]
    for path, lie in random.Random(0).sample(cases, min(4 * examples, len(cases))):
        content = json.loads(json.dumps(honest))
        if lie is DELETE:
            inner = at(content, path[:-1])
            inner.pop(path[-1], None) if isinstance(inner, dict) else inner.pop(path[-1])
        else:
            put(content, path, lie)
        text = json.dumps({"model": content, "sha256": model_file.checksum(state, content)})
        (tmp_path / "w").write_bytes(safetensors.torch.save(state, {"model": text}))
        try:
            _, model = model_file.load(tmp_path / "w")
        except UserError as error:
            one_line(error)
            assert str(tmp_path / "w") in str(error) and len(str(error)) < 1000
        else:
            assert card.summary(model) and card.origin(model.provenance)


def at(tree: Any, path: tuple[Any, ...]) -> Any:
    """The value at this path."""
    return at(tree[path[0]], path[1:]) if path else tree


def test_model_files_that_are_damaged(examples, tmp_path):
    """A model file with a changed byte and a missing end is refused, unless nothing changed."""
    whole = model_file.dump(make(0), record())

    def read(content: bytes) -> None:
        (tmp_path / "w").write_bytes(content)
        try:
            model_file.load(tmp_path / "w")
        except UserError as error:
            one_line(error)
        else:
            assert content == whole

    check(examples, read, damages([whole]))


def test_records_in_json_of_anything(examples, tmp_path):
    """dataset.json with any value or bytes is read as a data set, or refused."""
    honest = asdict(record().dataset)
    path = tmp_path / "dataset.json"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        for function in (lambda: files.read_record(path, Dataset), lambda: files.read_json(path)):
            try:
                function()
            except UserError as error:
                one_line(error)

    def changed(name: str, value: Any) -> bytes:
        return json.dumps(honest | {name: value}).encode()

    values = st.builds(changed, st.sampled_from(sorted(honest)), ANYTHING)
    deep = st.just(b"[" * 100_000)
    check(examples, read, st.one_of(values, st.binary(max_size=20), deep))
