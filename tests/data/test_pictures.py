"""Decoding the user's pictures: the formats, and the reasons for refusing a picture."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cifar import UserError
from cifar.data import pictures

HOSTILE = pytest.mark.hostile  # one marked case per input; unmarked cases are variants
RED, GREEN, BLUE, WHITE = [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]


def encoded(
    pixels: list | np.ndarray | Image.Image, form: str = "PNG", mode: str | None = None, **options
) -> bytes:
    """The pixels as a picture file."""
    image = (
        pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.array(pixels, np.uint8))
    )
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, form, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, kind: int, rows: bytes) -> bytes:
    """A PNG of a kind that Pillow cannot write: 0 is grey, 2 RGB, 4 grey with alpha, 6 RGBA."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + name
            + content
            + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


# Decoding

SQUARE = [[RED, GREEN], [BLUE, [1, 2, 3]]]


@pytest.mark.parametrize("form", ["PNG", "BMP", "GIF", "JPEG2000", "TIFF", "PPM", "WEBP"])
def test_a_picture_of_the_size_keeps_its_pixels(form):
    """If nothing has to be scaled, the exact pixels arrive, in the order red, green, blue."""
    pixels = pictures.decode(
        encoded(SQUARE, form, **({"lossless": True} if form == "WEBP" else {})), 2
    )
    assert pixels.tolist() == SQUARE
    assert pixels.dtype == np.uint8


def test_a_jpeg_is_read():
    """A JPEG is read exactly, apart from its compression."""
    pixels = pictures.decode(encoded(np.full((8, 8, 3), [200, 50, 100]), "JPEG", quality=100), 8)
    assert np.abs(pixels.astype(int) - [200, 50, 100]).max() <= 2


@pytest.mark.parametrize("shape", [(640, 800), (801, 643)])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"mode": "L"}, {"mode": "CMYK"}])
def test_a_large_jpeg_is_decoded_at_a_smaller_size(shape, options, monkeypatch):
    """The values differ by at most a fiftieth of the range from those of the full size."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    content = encoded(coarse.resize(shape, Image.Resampling.BICUBIC), "JPEG", **options)
    sizes = []
    fit = pictures.fit
    monkeypatch.setattr(pictures, "fit", lambda im, *rest: sizes.append(im.size) or fit(im, *rest))
    smaller = pictures.decode(content, 32).astype(int)
    monkeypatch.setattr(pictures, "REDUCED", 1000)
    assert np.abs(smaller - pictures.decode(content, 32)).max() <= 5
    reduced, whole = sizes
    assert whole == shape
    assert min(reduced) >= 64 and max(reduced) < max(whole) / 4


@pytest.mark.hostile
def test_grey_becomes_three_equal_channels():
    """A grey value goes into all channels; black and white become 0 and 255."""
    assert pictures.decode(encoded([[0, 7], [100, 255]]), 2).tolist() == [
        [[0] * 3, [7] * 3],
        [[100] * 3, [255] * 3],
    ]
    assert pictures.decode(encoded([[0, 255], [255, 0]], mode="1"), 2)[0].tolist() == [
        [0] * 3,
        WHITE,
    ]


@pytest.mark.hostile
def test_transparency_is_laid_over_white():
    """Opaque stays, transparent becomes white, half is mixed; for RGBA, grey and palettes."""
    rgba = [[[255, 0, 0, 255], [255, 0, 0, 0]], [[0, 0, 0, 51], [100, 200, 0, 102]]]
    assert pictures.decode(encoded(rgba), 2).tolist() == [
        [RED, WHITE],
        [[204] * 3, [193, 233, 153]],
    ]
    assert pictures.decode(encoded([[[9, 255], [9, 0]], [[0, 51], [255, 9]]]), 2).tolist() == [
        [[9] * 3, WHITE],
        [[204] * 3, WHITE],
    ]
    palette = Image.fromarray(np.array([[0, 1], [1, 1]], np.uint8)).convert("P")
    palette.putpalette([255, 0, 0, 0, 0, 255])
    assert pictures.decode(encoded(palette), 2).tolist() == [[RED, BLUE], [BLUE, BLUE]]
    assert pictures.decode(encoded(palette, transparency=0), 2).tolist() == [
        [WHITE, BLUE],
        [BLUE, BLUE],
    ]
    assert pictures.decode(encoded(palette, "GIF"), 2).tolist() == [[RED, BLUE], [BLUE, BLUE]]


@pytest.mark.hostile
def test_cmyk_is_turned_to_rgb():
    """Print colours become screen colours: no ink is white, cyan removes red."""
    inks = Image.new("CMYK", (2, 2))
    inks.putpixel((1, 0), (255, 0, 0, 0))
    inks.putpixel((0, 1), (0, 0, 0, 255))
    assert pictures.decode(encoded(inks, "TIFF"), 2).tolist() == [
        [WHITE, [0, 255, 255]],
        [[0, 0, 0], WHITE],
    ]


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, [[RED, GREEN], [BLUE, WHITE]]),
        (2, [[GREEN, RED], [WHITE, BLUE]]),
        (3, [[WHITE, BLUE], [GREEN, RED]]),
        (4, [[BLUE, WHITE], [RED, GREEN]]),
        (5, [[RED, BLUE], [GREEN, WHITE]]),
        pytest.param(6, [[BLUE, RED], [WHITE, GREEN]], marks=HOSTILE),
        (7, [[WHITE, GREEN], [BLUE, RED]]),
        (8, [[GREEN, WHITE], [RED, BLUE]]),
    ],
)
def test_a_picture_is_turned_upright(orientation, expected):
    """Each of the eight EXIF orientations is applied to the pixels."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert (
        pictures.decode(encoded([[RED, GREEN], [BLUE, WHITE]], exif=exif), 2).tolist() == expected
    )


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_keeps_its_centre_square(form, orientation):
    """The centre of a wide picture is used, however the camera was held."""
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32] = GREEN
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = pictures.decode(encoded(wide, form, exif=exif), 16)
    assert np.abs(pixels[1:-1, 1:-1].astype(int) - GREEN).max() <= 60  # JPEG and WebP blur the edge


@pytest.mark.hostile
def test_scaling_averages():
    """One pixel is scaled up to one colour; pixels that do not fit are averaged, not dropped."""
    assert (pictures.decode(encoded([[[9, 8, 7]]]), 5) == [9, 8, 7]).all()
    assert pictures.decode(encoded([[0, 200], [200, 0]]), 1).tolist() == [[[100] * 3]]


def test_another_shape_gives_its_centre_square():
    """If a picture is not square, its centre is used; it is not squeezed."""
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, 4:8] = GREEN
    assert (pictures.decode(encoded(wide), 4) == GREEN).all()
    assert (pictures.decode(encoded(wide.transpose(1, 0, 2)), 4) == GREEN).all()
    assert pictures.decode(encoded(wide), 3).shape == (3, 3, 3)


def animation(form: str) -> bytes:
    return encoded([[RED]], form, save_all=True, append_images=[Image.new("RGB", (1, 1), "blue")])


BAD = {
    "empty": (b"", "empty file"),
    "text": (b"hello", "not a picture in a known format"),
    "vector": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture in a known format"),
    "PDF": (b"%PDF-1.7\n", "not a picture in a known format"),
    "icon": (encoded(Image.new("RGB", (16, 16)), "ICO"), "not a picture in a known format"),
    "cut PNG": (encoded(np.arange(300).reshape(10, 10, 3))[:-30], "truncated"),
    "cut JPEG": (encoded(np.arange(3000).reshape(100, 10, 3) % 256, "JPEG")[:-30], "truncated"),
    "cut BMP": (encoded(SQUARE, "BMP")[:-3], "truncated"),
    "cut TIFF": (encoded(SQUARE, "TIFF")[:-1], ""),
    "animated GIF": (animation("GIF"), "animated"),
    "animated PNG": (animation("PNG"), "animated"),
    "animated WEBP": (animation("WEBP"), "animated"),
    "pages": (animation("TIFF"), "multi-page"),
    "16-bit grey": (png(1, 1, 16, 0, b"\0\x12\x34"), "not 8 bits per channel (mode I;16"),
    "16-bit RGB": (
        png(1, 1, 16, 2, b"\0" + b"\x12\x34" * 3),
        "not 8 bits per channel (16 bits per channel)",
    ),
    "16-bit PPM": (b"P6 2 2 65535\n" + b"\x12\x34" * 12, "not 8 bits per channel (values up to"),
    "16-bit text PPM": (b"P3 1 1 65535\n1 2 3\n", "not 8 bits per channel (values up to 65535)"),
    "16-bit JPEG 2000": (
        encoded(SQUARE, "JPEG2000").replace(b"\7\1\1" * 3, b"\x0f\1\1" * 3),
        "not 8 bits per channel (16 bits per channel)",
    ),
    "16-bit grey, alpha": (png(1, 1, 16, 4, b"\0" + b"\x12\x34" * 2), "not 8 bits per channel"),
    "16-bit RGBA": (png(1, 1, 16, 6, b"\0" + b"\x12\x34" * 4), "not 8 bits per channel"),
    "float": (
        encoded(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"),
        "not 8 bits per channel (mode F)",
    ),
    "32-bit": (encoded(Image.new("I", (2, 2)), "TIFF"), "not 8 bits per channel (mode I)"),
    "bomb": (png(30_000, 30_000, 1, 0, b""), "900000000 pixels"),
}


def with_chunk(kind: bytes, content: bytes, checksum: int | None = None) -> bytes:
    """A PNG of SQUARE with one more chunk, after its header."""
    whole = encoded(SQUARE)
    checksum = zlib.crc32(kind + content) if checksum is None else checksum
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
    return whole[:33] + chunk + whole[33:]


LARGE = zlib.compress(np.random.default_rng(0).bytes(1_500_000))


@HOSTILE
@pytest.mark.parametrize(
    "content",
    [
        with_chunk(b"eXIf", bytes.fromhex("00080002011200030000000100010000")),
        with_chunk(b"eXIf", b""),
        with_chunk(b"iCCP", b"icc\0\0" + LARGE),
        with_chunk(b"iCCP", b"icc\0\0not packed"),
        with_chunk(b"zTXt", b"Comment\0\0" + LARGE),
        with_chunk(b"iTXt", b"XML\0\1\0\0\0" + LARGE),
        with_chunk(b"tEXt", b"Comment\0x", checksum=1),
        with_chunk(b"pHYs", b"\0"),
        with_chunk(b"prVt", b"private"),
    ],
    ids=[
        *("eXIf without a header", "no eXIf", "large iCCP", "damaged iCCP", "large zTXt"),
        *("large iTXt", "wrong checksum", "short pHYs", "private"),
    ],
)
def test_odd_chunks_do_not_matter(content):
    """A PNG that every viewer shows is read, whatever its chunks other than pixels contain."""
    assert pictures.decode(content, 2).tolist() == SQUARE


@HOSTILE
def test_a_damaged_pixel_chunk_does_matter():
    """A PNG with an odd chunk and damaged pixels is refused."""
    content = bytearray(with_chunk(b"iCCP", b"icc\0\0" + LARGE))
    content[-20] ^= 1
    with pytest.raises(ValueError, match=r"."):
        pictures.decode(bytes(content), 2)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation(form):
    """With `on_animated: first`, the first frame or page is used; otherwise it is refused."""
    with pytest.raises(ValueError, match=r"animated or multi-page \(2 frames, see preprocess"):
        pictures.decode(animation(form), 1)
    pixels = pictures.decode(animation(form), 1, first_frame=True)
    assert (np.abs(pixels.astype(int) - RED) <= 2).all()


@HOSTILE
def test_the_limit_of_pixels_can_be_moved(monkeypatch):
    """Pictures of more than MAX_PIXELS pixels are refused, without a warning of Pillow."""
    content = encoded(np.zeros((10, 20, 3)))
    monkeypatch.setenv("MAX_PIXELS", "199")
    with pytest.raises(ValueError, match="20 x 10 = 200 pixels, more than MAX_PIXELS=199"):
        pictures.decode(content, 2)
    monkeypatch.setenv("MAX_PIXELS", "200")
    assert pictures.decode(content, 2).shape == (2, 2, 3)


@HOSTILE
@pytest.mark.parametrize("text", ["many", "", "-1", "1_0", " 10", "1e9", "²", "٣", "9" * 5000])
def test_a_limit_that_is_no_number_is_one_line(text, monkeypatch):
    """Only digits are accepted, not all that Python reads as a number, and not too many."""
    monkeypatch.setenv("MAX_PIXELS", text)
    with pytest.raises(UserError, match=r"^not a number of up to 18 digits: .* \(MAX_PIXELS\): "):
        pictures.max_pixels()


@pytest.mark.filterwarnings("error")
def test_a_large_picture_is_read_without_a_warning():
    """Pillow's limit of 89 million pixels is not used: the reason here is the truncation."""
    with pytest.raises(ValueError, match="truncated"):
        pictures.decode(png(9_500, 9_500, 1, 0, b""), 2)


@pytest.mark.skipif("AVIF" not in pictures.FORMATS, reason="this Pillow has no AVIF")
def test_avif_is_read():
    """AVIF, used by phones and the web, is read like any other format."""
    pixels = pictures.decode(encoded(np.full((64, 64, 3), [200, 50, 100]), "AVIF", quality=95), 8)
    assert np.abs(pixels.astype(int) - [200, 50, 100]).max() <= 4


@HOSTILE
def test_heic_is_read_where_its_reader_is_installed():
    """HEIC is read upright and in colour, the first of several if requested; damage is reported."""
    heif = pytest.importorskip("pillow_heif")
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:32] = [200, 50, 100]
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter, clockwise
    content = encoded(pixels, "HEIF", quality=-1, exif=exif.tobytes())
    found = pictures.decode(content, 64).astype(int)
    assert np.abs(found[:, 40:] - [200, 50, 100]).max() <= 4
    assert found[:, :24].max() <= 4
    with pytest.raises(ValueError, match="damaged"):
        pictures.decode(content[:200], 64)
    two = heif.HeifFile()
    two.add_from_pillow(Image.fromarray(pixels))
    two.add_from_pillow(Image.fromarray(255 - pixels))
    buffer = io.BytesIO()
    two.save(buffer, quality=-1)
    with pytest.raises(ValueError, match=r"multi-page \(2 frames, see preprocess.on_animated\)"):
        pictures.decode(buffer.getvalue(), 64)
    found = pictures.decode(buffer.getvalue(), 64, first_frame=True).astype(int)
    assert np.abs(found[:24] - [200, 50, 100]).max() <= 4


@HOSTILE
def test_heic_without_its_reader_says_what_to_install(monkeypatch):
    """Without pillow-heif, the reason for refusing a HEIC says that it is needed."""
    monkeypatch.setattr(pictures, "pillow_heif", None)
    content = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    with pytest.raises(ValueError, match="HEIC, which needs `pip install pillow-heif`"):
        pictures.decode(content, 2)


VARIANTS = ("icon", "cut BMP", "16-bit grey, alpha", "16-bit RGBA")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in VARIANTS else HOSTILE) for name in BAD]
)
def test_a_bad_picture_is_reported(name):
    """A file without usable 8-bit pixels is refused with a short reason."""
    content, message = BAD[name]
    with pytest.raises(ValueError) as caught:
        pictures.decode(content, 2)
    assert message in str(caught.value)
    assert 0 < len(str(caught.value)) < 150
    assert "\n" not in str(caught.value)


@pytest.mark.hostile
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damage_of_any_kind_is_a_reason():
    """Whichever byte of a picture is damaged, the result is pixels or a reason."""
    for form in ("PNG", "JPEG", "TIFF", "GIF", "WEBP"):
        exif = Image.Exif()
        exif[0x0112] = 6
        content = encoded(
            np.arange(192).reshape(8, 8, 3), form, **({} if form == "GIF" else {"exif": exif})
        )
        for place in range(0, len(content), 3):
            damaged = content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]
            try:
                assert pictures.decode(damaged, 8).shape == (8, 8, 3)
            except ValueError as error:
                assert str(error)


@pytest.mark.hostile
def test_a_telephones_jpeg_is_its_first_picture():
    """A JPEG with further views after the picture, as phones write it, is not an animation."""
    red, blue = (Image.new("RGB", (64, 64), colour) for colour in ("red", "blue"))
    pixels = pictures.decode(encoded(red, "MPO", save_all=True, append_images=[blue]), 8)
    assert (np.abs(pixels.astype(int) - RED) <= 2).all()


def test_all_bad_pictures_are_listed_and_the_good_ones_are_there():
    """Bad pictures are reported by their position; the others are at theirs."""
    images, problems = pictures.decode_all([b"", encoded([[RED]]), b"x", encoded([[BLUE]])], 1)
    assert problems == {0: "empty file", 2: "not a picture in a known format"}
    assert images.shape == (4, 1, 1, 3)
    assert images[[1, 3], 0, 0].tolist() == [RED, BLUE]


@pytest.mark.parametrize("cores", [1, 64])
def test_the_number_of_threads_leaves_no_trace(cores, monkeypatch):
    """Any number of cores gives the same pixels in the same order, and the same bad pictures."""
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    contents = [b"" if i % 7 == 3 else encoded(np.full((9, 5, 3), i)) for i in range(200)]
    images, problems = pictures.decode_all(contents, 4)
    assert list(problems) == [i for i in range(200) if i % 7 == 3]
    assert images[:, 0, 0, 0].tolist() == [0 if i in problems else i for i in range(200)]


# Resizing


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [1, 2, 6])
def test_arrays_are_resized_as_pictures_are(size, channels):
    """An array of images is scaled by the same filter as picture files, in colour and grey."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 4, 4, channels), dtype=np.uint8)
    resized = pictures.resize(images, size)
    assert resized.shape == (3, size, size, channels)
    for before, after in zip(images, resized, strict=True):
        expected = pictures.decode(encoded(before.squeeze()), size)
        np.testing.assert_array_equal(np.broadcast_to(after, expected.shape), expected)


def test_arrays_of_the_size_are_not_touched():
    """If the size is right, the same array is returned."""
    images = np.zeros((2, 4, 4, 3), np.uint8)
    assert pictures.resize(images, 4) is images


@pytest.mark.fault
def test_memory_that_runs_out_is_a_reason_of_its_own(monkeypatch):
    """A picture that does not fit into memory is not called damaged."""
    monkeypatch.setattr(pictures, "fit", lambda *_: bytearray(2**62))
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4)).save(buffer, "PNG")
    _, problems = pictures.decode_all([buffer.getvalue()], 4)
    assert problems == {0: pictures.NO_MEMORY}
