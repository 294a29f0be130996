"""Decode pictures by fixed rules: turned upright, laid over white, the centre square scaled."""

import io
import os
import re
import warnings
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from PIL import Image, UnidentifiedImageError, features
from PIL.JpegImagePlugin import JpegImageFile

from cifar import UserError
from cifar.data.png import essential_png

try:
    import pillow_heif  # type: ignore[import-not-found,unused-ignore]
except ImportError:
    pillow_heif = None  # type: ignore[assignment,unused-ignore]
else:
    pillow_heif.register_heif_opener()

FORMATS = (
    *("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"),
    *(["AVIF"] if features.check("avif") else []),
    *(["HEIF"] if pillow_heif else []),
)
EIGHT_BIT = frozenset(
    ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"]
)
HEIC_BRANDS = frozenset([b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"])
JPEG_2000_SIZE = b"\xff\x4f\xff\x51"  # the markers before the sizes and bit depths of the channels
MAX_PIXELS = 200_000_000  # overridden by the environment variable of this name
REDUCED = 2  # a large JPEG is decoded to at least this multiple of the final size
ORIENTATION = 0x0112  # the EXIF tag that says how the camera was held
TURNS = {  # maps the value of that tag to the turn that makes a picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Image.MAX_IMAGE_PIXELS = None  # `check` has its own limit: one line instead of a warning
warnings.filterwarnings("ignore", module=r"PIL\.")  # about metadata that nothing here uses


NO_MEMORY = "too little memory to decode it"


class RefusedError(ValueError):
    """The picture is intact, but of a kind that is not accepted."""


def decode(content: bytes, size: int, first_frame: bool = False) -> np.ndarray:
    """Decode a picture to (size, size, 3) uint8: upright, over white, its centre square scaled.

    Args:
        first_frame: accept an animation or a document of several pages, and use the first one.

    Raises:
        ValueError: the picture cannot be used; the message is the reason in a few words.
        UserError: MAX_PIXELS is not a number.
    """
    limit = max_pixels()
    try:
        try:
            return read_pixels(content, size, first_frame, limit)
        except (RefusedError, MemoryError):
            raise
        except Exception:  # the only fault may be an extra chunk that viewers ignore
            essential = essential_png(content)
            if not essential:
                raise
            return read_pixels(essential, size, first_frame, limit)
    except UnidentifiedImageError:
        raise ValueError(unknown(content)) from None
    except MemoryError:
        raise ValueError(NO_MEMORY) from None
    except Exception as error:  # noqa: BLE001  a damaged picture raises almost anything
        raise ValueError(str(error).partition("\n")[0] or "damaged") from None


def read_pixels(content: bytes, size: int, first_frame: bool, limit: int) -> np.ndarray:
    """`decode` in a single attempt, without catching what Pillow raises."""
    file = Image.open(io.BytesIO(content), formats=FORMATS)
    check(file, content, first_frame, limit)
    reduced = reduce(file, size)
    file.load()  # this already turns some formats upright
    extent = reduced or file.size
    turn = TURNS.get(orientation(file))
    image: Image.Image = file
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = fit(image.convert("RGB"), size, extent)
    return np.asarray(image if turn is None else image.transpose(turn))


def reduce(file: Image.Image, size: int) -> tuple[float, float] | None:
    """Have a large JPEG decoded at a half, a quarter or an eighth of its width and height.

    Returns:
        The exact width and height of the picture at that scale; the decoded image may be a
        fraction of a pixel larger. None if the scale cannot be chosen, as in other formats.
    """
    if not isinstance(file, JpegImageFile):
        return None
    reduced = file.draft("", (REDUCED * size, REDUCED * size))
    return reduced and reduced[1][2:]


def check(file: Image.Image, content: bytes, first_frame: bool, limit: int) -> None:
    """Refuse an opened picture that is too large, animated, or has more than 8 bits a channel."""
    width, height = file.size
    if width * height > limit:
        raise RefusedError(
            f"{width} x {height} = {width * height} pixels, more than MAX_PIXELS={limit}"
        )
    frames = getattr(file, "n_frames", 1)
    if frames > 1 and file.format != "MPO" and not first_frame:  # MPO: views of one photograph
        raise RefusedError(f"animated or multi-page ({frames} frames, see preprocess.on_animated)")
    if file.mode not in EIGHT_BIT:
        raise RefusedError(f"not 8 bits per channel (mode {file.mode})")
    if dropped := bits_dropped(file, content):
        raise RefusedError(f"not 8 bits per channel ({dropped})")


def bits_dropped(file: Image.Image, content: bytes) -> str:
    """The depth that Pillow would silently reduce to 8 bits per channel; empty if 8 or less."""
    tiles = getattr(file, "tile", [])
    if ";16" in str(tiles):
        return "16 bits per channel"
    if file.format == "PPM" and isinstance(tiles[0].args, tuple) and tiles[0].args[1] > 255:
        return f"values up to {tiles[0].args[1]}"
    start = content.find(JPEG_2000_SIZE) if file.format == "JPEG2000" else -1
    if start >= 0:
        depths = content[start + 42 : start + 42 + 3 * content[start + 41] : 3]  # one per channel
        bits = max(((depth & 0x7F) + 1 for depth in depths), default=8)
        return f"{bits} bits per channel" if bits > 8 else ""
    return ""


def max_pixels() -> int:
    text = os.environ.get("MAX_PIXELS", str(MAX_PIXELS))
    if not re.fullmatch("[0-9]{1,18}", text):
        raise UserError(
            f"not a number of up to 18 digits: {text[:40]!a} (MAX_PIXELS): set it to a number of "
            "pixels"
        )
    return int(text)


def orientation(file: Image.Image) -> int:
    """The EXIF orientation; 1, upright, if it is missing or unreadable."""
    try:
        value = file.getexif().get(ORIENTATION)
    except Exception:  # noqa: BLE001  odd metadata raises almost anything
        return 1
    return value if value in TURNS else 1


def unknown(content: bytes) -> str:
    """The reason why Pillow does not recognise a file."""
    if not content:
        return "empty file"
    if content[4:8] == b"ftyp" and content[8:12] in HEIC_BRANDS:
        return "damaged" if pillow_heif else "HEIC, which needs `pip install pillow-heif`"
    return "not a picture in a known format"


def shorter_side(content: bytes) -> int:
    """The shorter side in pixels; 0 if `decode` cannot open the picture in its first attempt."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as file:
            return min(file.size)
    except Exception:  # noqa: BLE001  an odd chunk raises almost anything
        return 0


def grey(pixels: np.ndarray) -> np.ndarray:
    """Convert (H, W, 3) uint8 to (H, W, 1), by Pillow's rule; equal channels keep their value."""
    return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]


def fit(image: Image.Image, size: int, extent: tuple[float, float]) -> Image.Image:
    """Scale the centre square to `size`; an image of that size keeps its exact pixels.

    Args:
        extent: width and height of the part to use, from the upper left corner.
    """
    width, height = extent
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BICUBIC, box)


def decode_all(
    contents: list[bytes], size: int, channels: int = 3, first_frame: bool = False
) -> tuple[np.ndarray, dict[int, str]]:
    """Decode all pictures to (N, size, size, channels) uint8; an unreadable one is black.

    Args:
        channels: 3, or 1 for grey levels.
        first_frame: as in `decode`.

    Returns:
        The images, and a dictionary that maps the position of each unreadable one to the reason.
    """

    def read(content: bytes) -> np.ndarray:
        image = decode(content, size, first_frame)
        return image if channels == 3 else grey(image)

    with ThreadPoolExecutor() as pool:  # Pillow releases Python's lock while it decodes
        return collect([pool.submit(read, content) for content in contents], size, channels)


def collect(
    results: Sequence[Future[np.ndarray]], size: int, channels: int = 3
) -> tuple[np.ndarray, dict[int, str]]:
    """Collect the results of `decode` in other threads, in the form that `decode_all` returns."""
    images = np.zeros((len(results), size, size, channels), np.uint8)
    problems: dict[int, str] = {}
    for i, result in enumerate(results):
        try:
            images[i] = result.result()
        except ValueError as error:
            problems[i] = str(error)
    return images, problems


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """Resize (N, H, W, C) uint8 to (N, size, size, C), bicubic; unchanged if of that size."""
    if images.shape[1:3] == (size, size):
        return images
    out = np.empty((len(images), size, size, images.shape[3]), np.uint8)
    for pixels, row in zip(images, out, strict=True):
        image = Image.fromarray(pixels[..., 0] if row.shape[2] == 1 else pixels)
        row[:] = np.asarray(fit(image, size, image.size)).reshape(row.shape)
    return out
