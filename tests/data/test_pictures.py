"""The user's own pictures: which layouts are read, and what becomes of each kind of picture."""

import io
import os
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifar import UserError
from cifar.data import pictures

HOSTILE = pytest.mark.hostile  # one case of these is one input; other cases are variants of it
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
    """A PNG by hand, for what Pillow does not write; kind 0 is grey, 2 RGB, 4 grey with alpha, 6 RGBA."""

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


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode("utf-8", "surrogateescape"))
    return folder


# Layouts


@pytest.mark.parametrize(
    ("names", "places"),
    [
        (
            ["train/cat/1", "train/dog/1", "test/dog/2"],
            ["train/cat/1", "train/dog/1", "test/dog/2"],
        ),
        (["train/cat/1", "train/dog/1"], ["train/cat/1", "train/dog/1"]),
        (["cat/1", "dog/1"], ["train/cat/1", "train/dog/1"]),
        (["pets/cat/1", "pets/dog/1"], ["train/cat/1", "train/dog/1"]),
        (
            ["pets/train/cat/1", "pets/train/dog/1", "pets/test/cat/1"],
            ["train/cat/1", "train/dog/1", "test/cat/1"],
        ),
        (["train/train/cat/1", "train/train/dog/1"], ["train/cat/1", "train/dog/1"]),
        (["train/1", "plane/1"], ["train/train/1", "train/plane/1"]),
        pytest.param(
            ["Katzen/ä ö/1", "Katzen/犬/1"],
            ["train/ä ö/1", "train/犬/1"],
            marks=HOSTILE,
            id="other scripts",
        ),
    ],
)
def test_the_layouts_that_are_read(names, places):
    """Train and test, train alone, classes alone, each with one folder around it or without, in any script."""
    assert pictures.place(names, "x") == dict(zip(names, places, strict=True))


@pytest.mark.parametrize(
    "junk",
    [
        *(
            pytest.param(name, marks=HOSTILE)
            for name in ("dog/.DS_Store", "__MACOSX/cat/._1", "cat/Thumbs.db")
        ),
        ".git/config",
        "cat/desktop.ini",
    ],
)
def test_hidden_files_are_left_out(junk):
    """What systems leave in folders and archives is no picture and no class."""
    assert set(pictures.place(["cat/1", "dog/1", junk], "x")) == {"cat/1", "dog/1"}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        pytest.param([], "no pictures", marks=HOSTILE, id="nothing"),
        ([".hidden/cat/1"], "no pictures"),
        pytest.param(["1", "2"], "'1' is not in a class folder", marks=HOSTILE, id="a flat folder"),
        pytest.param(
            ["cat/1", "dog/1", "readme.txt"],
            "'readme.txt' is not in a class folder",
            marks=HOSTILE,
            id="a text beside",
        ),
        (["train/cat/1", "train/dog/1", "test/1"], "'test/1' is not in a class folder"),
        (["train/cat/1", "train/dog/old/1"], "'train/dog/old/1' is not in a class folder"),
        (["test/cat/1", "test/dog/1"], "is not in a class folder"),
        pytest.param(
            ["cat/1", "cat/2"], "only one class, 'cat'", marks=HOSTILE, id="a single class"
        ),
        (["train/cat/1", "test/cat/1"], "only one class, 'cat'"),
        pytest.param(
            ["train/cat/1", "train/dog/1", "test/cow/1"],
            "class 'cow' has test pictures but no training pictures",
            marks=HOSTILE,
            id="a class for testing only",
        ),
        pytest.param(
            ["cat/1", "dog/1", "Cat/1"],
            "classes 'Cat' and 'cat' differ by case only",
            marks=HOSTILE,
            id="cat and Cat",
        ),
        (["straße/1", "dog/1", "STRASSE/1"], "differ by case only"),
        pytest.param(
            ["cat/\udcff1", "dog/1"],
            r"the name 'cat/\udcff1' is not UTF-8",
            marks=HOSTILE,
            id="a name that is no text",
        ),
        pytest.param(
            ["cat/\033[2J", "dog/1"],
            r"the name 'cat/\x1b[2J' is not",
            marks=HOSTILE,
            id="a name that clears the screen",
        ),
        (["cat/1\nerror: all is well", "dog/1"], "has control characters"),
        (["cat/1", "d\udce9g/1"], "is not UTF-8"),
    ],
)
def test_the_layouts_that_are_refused(names, said):
    """No picture, pictures outside class folders, no two classes, ambiguous classes and names that are no text."""
    with pytest.raises(UserError) as caught:
        pictures.place(names, "my/pictures")
    assert said in str(caught.value)
    assert "my/pictures" in str(caught.value)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


def test_a_folder_is_read_sorted_and_without_what_is_hidden(tmp_path):
    """Names come sorted, links to files and folders are followed, and hidden folders are not entered, however deep."""
    fill(
        tmp_path / "a", "cat/2.png", "cat/10.png", ".git/refs/remotes/origin/HEAD", "cat/.DS_Store"
    )
    fill(tmp_path / "b", "dog/1.png", "1.png")
    (tmp_path / "a" / "dog").symlink_to(tmp_path / "b" / "dog")
    (tmp_path / "a" / "cat" / "3.png").symlink_to(tmp_path / "b" / "1.png")
    found = pictures.folder_files(tmp_path / "a")
    assert list(found) == ["cat/10.png", "cat/2.png", "cat/3.png", "dog/1.png"]
    assert found["dog/1.png"].read_bytes() == b"dog/1.png"


@pytest.mark.hostile
def test_folders_deeper_than_any_layout_are_refused(tmp_path):
    """The deepest layout, train and test with a folder around them, is read; a folder inside a class is not."""
    fill(tmp_path, "pets/train/cat/1", "pets/train/dog/1")
    assert list(pictures.folder_files(tmp_path)) == ["pets/train/cat/1", "pets/train/dog/1"]
    fill(tmp_path, "pets/train/dog/old/1")
    with pytest.raises(UserError, match=r"folders nested too deep .*old"):
        pictures.folder_files(tmp_path)


@pytest.mark.parametrize("place", [".", "cat", pytest.param("train/cat", marks=HOSTILE)])
def test_a_circle_of_links_ends(place, tmp_path):
    """A link to a folder that it is in multiplies no pictures: it is an error that names the place."""
    fill(tmp_path, "train/cat/1", "cat/1")
    (tmp_path / place / "again").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(UserError, match=r"folders nested too deep .*again"):
        pictures.folder_files(tmp_path)


@pytest.mark.hostile
@pytest.mark.parametrize("kind", ["pipe", "dangling", "itself"])
def test_what_is_no_file_is_refused(kind, tmp_path):
    """A pipe, which would wait for ever, a link to nothing and a link to itself are told by name."""
    path = fill(tmp_path, "cat/1", "dog/1") / "cat" / "strange"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("nothing" if kind == "dangling" else path)
    with pytest.raises(UserError, match=r"neither a file nor a folder .*strange"):
        pictures.folder_files(tmp_path)


@HOSTILE
def test_an_empty_class_folder_is_refused(tmp_path):
    """A class folder without a picture, or with hidden files only, is told: nobody means a class of nothing."""
    fill(tmp_path, "train/cat/1", "train/dog/1", "train/cow/.DS_Store")
    with pytest.raises(UserError, match=r"^empty folder \(.*train/cow\): put pictures into it"):
        pictures.folder_files(tmp_path)


def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    """A file name in another encoding is told, since no output file could hold it."""
    try:
        fill(tmp_path, "cat/\udce4.png", "dog/1.png")
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    with pytest.raises(UserError, match="is not UTF-8"):
        pictures.place(pictures.folder_files(tmp_path), str(tmp_path))


# Packing

PAIRS = [
    ("train/dog/1.png", b"dog"),
    ("train/cat/ä.png", b""),
    (f"test/cat/{'n' * 150}.png", b"x" * 2000),
]


def test_unpack_is_the_inverse_of_pack(tmp_path):
    """What was packed comes back, sorted by name: long names, other scripts and empty files too."""
    with open(tmp_path / "a.tar", "wb") as handle:
        pictures.pack(iter(PAIRS), handle)
    assert pictures.unpack(tmp_path / "a.tar") == sorted(PAIRS)


def test_a_pack_carries_no_times_and_no_owners():
    """The same pictures are the same bytes, whoever packs them, and whenever."""
    packs = [io.BytesIO(), io.BytesIO()]
    for handle in packs:
        pictures.pack(PAIRS, handle)
    assert packs[0].getvalue() == packs[1].getvalue()
    packs[0].seek(0)
    with tarfile.open(fileobj=packs[0]) as tar:
        assert {
            (info.mtime, info.uid, info.gid, info.uname, info.gname, info.mode) for info in tar
        } == {(0, 0, 0, "", "", 0o644)}


# Decoding

SQUARE = [[RED, GREEN], [BLUE, [1, 2, 3]]]


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_a_picture_of_the_size_keeps_its_pixels(form):
    """Where nothing is to be scaled, the exact pixels arrive, in red, green, blue."""
    pixels = pictures.decode(
        encoded(SQUARE, form, **({"lossless": True} if form == "WEBP" else {})), 2
    )
    assert pixels.tolist() == SQUARE
    assert pixels.dtype == np.uint8


def test_a_jpeg_is_read():
    """A JPEG arrives up to its compression."""
    pixels = pictures.decode(encoded(np.full((8, 8, 3), [200, 50, 100]), "JPEG", quality=100), 8)
    assert np.abs(pixels.astype(int) - [200, 50, 100]).max() <= 2


@pytest.mark.hostile
def test_grey_becomes_three_equal_channels():
    """A greyscale picture has its value in all channels, a black and white one 0 and 255."""
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
    """Opaque stays, clear becomes white whatever is below it, and half is halfway; for RGBA, grey and palettes."""
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
    """Print colours become screen colours: no ink is white, cyan takes away red."""
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
    """The camera's orientation, in all its eight values, is applied to the pixels."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert (
        pictures.decode(encoded([[RED, GREEN], [BLUE, WHITE]], exif=exif), 2).tolist() == expected
    )


@pytest.mark.hostile
def test_scaling_averages():
    """A picture of one pixel is scaled up to one colour, and pixels that do not fit are averaged, not dropped."""
    assert (pictures.decode(encoded([[[9, 8, 7]]]), 5) == [9, 8, 7]).all()
    assert pictures.decode(encoded([[0, 200], [200, 0]]), 1).tolist() == [[[100] * 3]]


def test_another_shape_gives_its_centre_square():
    """Of a picture that is no square the middle is taken, not the whole squeezed."""
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
    "icon": (encoded(Image.new("RGB", (16, 16)), "ICO"), "not a picture in a known format"),
    "cut PNG": (encoded(np.arange(300).reshape(10, 10, 3))[:-30], "truncated"),
    "cut JPEG": (encoded(np.arange(3000).reshape(100, 10, 3) % 256, "JPEG")[:-30], "truncated"),
    "cut BMP": (encoded(SQUARE, "BMP")[:-3], "truncated"),
    "cut TIFF": (encoded(SQUARE, "TIFF")[:-1], ""),
    "animated GIF": (animation("GIF"), "animated"),
    "animated PNG": (animation("PNG"), "animated"),
    "animated WEBP": (animation("WEBP"), "animated"),
    "pages": (animation("TIFF"), "several pages"),
    "16-bit grey": (png(1, 1, 16, 0, b"\0\x12\x34"), "not 8 bits per channel (mode I;16"),
    "16-bit RGB": (png(1, 1, 16, 2, b"\0" + b"\x12\x34" * 3), "not 8 bits per channel"),
    "16-bit grey, alpha": (png(1, 1, 16, 4, b"\0" + b"\x12\x34" * 2), "not 8 bits per channel"),
    "16-bit RGBA": (png(1, 1, 16, 6, b"\0" + b"\x12\x34" * 4), "not 8 bits per channel"),
    "float": (
        encoded(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"),
        "not 8 bits per channel (mode F)",
    ),
    "32-bit": (encoded(Image.new("I", (2, 2)), "TIFF"), "not 8 bits per channel (mode I)"),
    "bomb": (png(30_000, 30_000, 1, 0, b""), "900000000 pixels"),
}


VARIANTS = ("icon", "cut BMP", "16-bit grey, alpha", "16-bit RGBA")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in VARIANTS else HOSTILE) for name in BAD]
)
def test_a_bad_picture_is_told(name):
    """What has no 8-bit pixels that a picture could be made of is refused, with a short reason."""
    content, said = BAD[name]
    with pytest.raises(ValueError) as caught:
        pictures.decode(content, 2)
    assert said in str(caught.value)
    assert 0 < len(str(caught.value)) < 150
    assert "\n" not in str(caught.value)


@pytest.mark.hostile
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damage_of_any_kind_is_a_reason():
    """Whatever byte of a picture is damaged, the outcome is pixels or a reason, and no other error."""
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
    """A JPEG that carries further views behind the picture, as telephones write them, is no animation."""
    red, blue = (Image.new("RGB", (64, 64), colour) for colour in ("red", "blue"))
    pixels = pictures.decode(encoded(red, "MPO", save_all=True, append_images=[blue]), 8)
    assert (np.abs(pixels.astype(int) - RED) <= 2).all()


def test_all_bad_pictures_are_listed_and_the_good_ones_are_there():
    """Every picture is tried; the bad ones are known by their index, and the others are in their places."""
    images, problems = pictures.decode_all([b"", encoded([[RED]]), b"x", encoded([[BLUE]])], 1)
    assert problems == {0: "empty file", 2: "not a picture in a known format"}
    assert images.shape == (4, 1, 1, 3)
    assert images[[1, 3], 0, 0].tolist() == [RED, BLUE]


@pytest.mark.parametrize("cores", [1, 64])
def test_the_number_of_threads_leaves_no_trace(cores, monkeypatch):
    """On any number of cores the same pixels come in the same order, and the same pictures are bad."""
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    contents = [b"" if i % 7 == 3 else encoded(np.full((9, 5, 3), i)) for i in range(200)]
    images, problems = pictures.decode_all(contents, 4)
    assert list(problems) == [i for i in range(200) if i % 7 == 3]
    assert images[:, 0, 0, 0].tolist() == [0 if i in problems else i for i in range(200)]


# Resizing


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [1, 2, 6])
def test_arrays_are_resized_as_pictures_are(size, channels):
    """An array of images goes through the same filter as picture files, for colour and for grey."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 4, 4, channels), dtype=np.uint8)
    resized = pictures.resize(images, size)
    assert resized.shape == (3, size, size, channels)
    for before, after in zip(images, resized, strict=True):
        expected = pictures.decode(encoded(before.squeeze()), size)
        np.testing.assert_array_equal(np.broadcast_to(after, expected.shape), expected)


def test_arrays_of_the_size_are_not_touched():
    """Where the size fits, the very same array comes back."""
    images = np.zeros((2, 4, 4, 3), np.uint8)
    assert pictures.resize(images, 4) is images
