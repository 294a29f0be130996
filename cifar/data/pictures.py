"""The user's own pictures: class folders packed into one tar, and each picture decoded under fixed rules."""

import io
import tarfile
import unicodedata
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cifar import UserError

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
EIGHT_BIT = {
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "HSV",
    "LAB",
}
SPLITS = ("train", "test")
LAYOUT = "expected train/<class>/<picture> and test/<class>/<picture>, or <class>/<picture> alone"


def folder_files(folder: Path, inside: str = "") -> dict[str, Path]:
    """Every file by its name relative to `folder`, sorted; links are followed, and a circle of them is too deep."""
    found: dict[str, Path] = {}
    for path in sorted(path for path in folder.iterdir() if not hidden((path.name,))):
        name = f"{inside}{path.name}"
        if path.is_dir():
            if name.count("/") > 2:
                raise UserError(f"folders nested too deep ({path}): {LAYOUT}")
            if not (below := folder_files(path, f"{name}/")):
                raise UserError(f"empty folder ({path}): put pictures into it, or remove it")
            found |= below
        elif path.is_file():
            found[name] = path
        else:
            raise UserError(f"neither a file nor a folder ({path}): remove it, or mend the link")
    return found


def place(names: Iterable[str], where: str) -> dict[str, str]:
    """For each picture its place, 'train/<class>/<file>' or 'test/<class>/<file>'.

    Hidden files are left out, and one folder around everything, as archives often have, is ignored.

    Raises:
        UserError: pictures outside class folders, a name that is not text, or classes as in `check_classes`.
    """
    parts = {
        name: PurePosixPath(name).parts for name in names if not hidden(PurePosixPath(name).parts)
    }
    if not parts:
        raise UserError(f"no pictures ({where}): {LAYOUT}")
    tops, depths = {p[0] for p in parts.values()}, {len(p) for p in parts.values()}
    if len(tops) == 1 and depths <= {3, 4} and (depths == {4} or not tops & set(SPLITS)):
        parts = {name: p[1:] for name, p in parts.items()}
        tops = {p[0] for p in parts.values()}
    if not (tops <= set(SPLITS) and "train" in tops):
        parts = {name: ("train", *p) for name, p in parts.items()}
    for name, p in parts.items():
        if len(p) != 3:
            raise UserError(f"{name!r} is not in a class folder ({where}): {LAYOUT}")
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
            raise UserError(
                f"the name {name!r} is not UTF-8 or has control characters ({where}): rename it"
            )
    check_classes({(p[0], p[1]) for p in parts.values()}, where)
    return {name: "/".join(p) for name, p in parts.items()}


def check_classes(found: set[tuple[str, str]], where: str) -> None:
    """Refuse a class without training pictures, one class alone, and two that differ by case only."""
    train = sorted(name for split, name in found if split == "train")
    if extra := sorted({name for _, name in found} - set(train)):
        raise UserError(
            f"class {extra[0]!r} has test pictures but no training pictures ({where}): add or remove it"
        )
    if len(train) < 2:
        raise UserError(f"only one class, {train[0]!r} ({where}): a classifier needs at least two")
    by_case: dict[str, str] = {}
    for name in train:
        if (other := by_case.setdefault(name.casefold(), name)) != name:
            raise UserError(
                f"classes {other!r} and {name!r} differ by case only ({where}): rename one"
            )


def hidden(parts: tuple[str, ...]) -> bool:
    """Files that systems leave in folders and archives without being asked."""
    return any(
        part.startswith(".") or part in ("__MACOSX", "Thumbs.db", "desktop.ini") for part in parts
    )


def pack(files: Iterable[tuple[str, bytes]], handle: IO[bytes]) -> None:
    """Write (name, content) pairs as an uncompressed tar with no times and no owners."""
    with tarfile.open(fileobj=handle, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def unpack(path: Path) -> list[tuple[str, bytes]]:
    """The (name, content) pairs that `pack` wrote, sorted by name."""
    with tarfile.open(path, "r:") as tar:
        return sorted((info.name, tar.extractfile(info).read()) for info in tar)  # type: ignore[union-attr]


def decode(content: bytes, size: int) -> np.ndarray:
    """One picture as (size, size, 3) uint8, upright, fitted, transparency laid over white as a viewer shows it.

    Raises:
        ValueError: with the reason in a few words, for what has no such pixels.
    """
    try:
        file = Image.open(io.BytesIO(content), formats=FORMATS)
        if (
            getattr(file, "n_frames", 1) > 1 and file.format != "MPO"
        ):  # of a telephone, with the picture first
            raise ValueError("animated, or of several pages")
        if file.mode not in EIGHT_BIT or ";16" in str(
            file.tile
        ):  # Pillow would drop half of the 16 bits
            raise ValueError(f"not 8 bits per channel (mode {file.mode})")
        image = ImageOps.exif_transpose(file)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return fit(image.convert("RGB"), size)
    except UnidentifiedImageError:
        raise ValueError("not a picture in a known format" if content else "empty file") from None
    except Exception as error:  # noqa: BLE001  a damaged picture raises almost anything
        raise ValueError(str(error).partition("\n")[0] or "damaged") from None


def shorter_side(content: bytes) -> int:
    """In pixels, of a picture that `decode` reads."""
    with Image.open(io.BytesIO(content), formats=FORMATS) as file:
        return min(file.size)


def grey(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 to (H, W, 1), by Pillow's rule; three equal channels keep their value."""
    return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]


def fit(image: Image.Image, size: int) -> np.ndarray:
    """The centre square, scaled; an image that has the size keeps its exact pixels."""
    return np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC))


def decode_all(
    contents: list[bytes], size: int, channels: int = 3
) -> tuple[np.ndarray, dict[int, str]]:
    """All pictures as (N, size, size, channels) uint8, and for each that cannot be read its index and the reason.

    Args:
        channels: 3, or 1 for grey levels.
    """
    images = np.zeros((len(contents), size, size, channels), np.uint8)
    problems: dict[int, str] = {}

    def one(i: int) -> None:
        try:
            pixels = decode(contents[i], size)
            images[i] = pixels if channels == 3 else grey(pixels)
        except ValueError as error:
            problems[i] = str(error)

    with ThreadPoolExecutor() as pool:  # Pillow decodes outside Python's lock
        list(pool.map(one, range(len(contents))))
    return images, dict(sorted(problems.items()))


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """(N, H, W, C) uint8 to (N, size, size, C), with Pillow's bicubic filter; unchanged where it fits already."""
    if images.shape[1:3] == (size, size):
        return images
    out = np.empty((len(images), size, size, images.shape[3]), np.uint8)
    for pixels, row in zip(images, out, strict=True):
        row[:] = fit(
            Image.fromarray(pixels[..., 0] if row.shape[2] == 1 else pixels), size
        ).reshape(row.shape)
    return out
