"""Stage fetch: every source gives the same verified arrays, or one line and no file."""

import hashlib
import io
import json
import pickle
import re
import tarfile
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from scratch import content, run_stage

from cifar.data import datasets, pack

CLASSES = {
    "cifar10": [f"class {i}" for i in range(10)],
    "cifar100": [f"class {i}" for i in range(100)],
}


def arrays(member: int, count: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images of one member of an archive, with labels in turn."""
    images = np.random.default_rng(member).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return images, (member * count + np.arange(count)) % classes


def cifar(path: Path, name: str, kind: str, top: str = "top/") -> dict[str, np.ndarray]:
    """Write an archive of all classes in an official layout, and return its arrays."""
    layout = getattr(datasets.DATASETS[name], kind)
    members, expected = {}, {}
    for split, names in (("train", layout.train), ("test", layout.test)):
        count = len(CLASSES[name]) // len(names)
        first = 9 * (split == "test")
        parts = [arrays(first + i, count, len(CLASSES[name])) for i in range(len(names))]
        expected[f"{split}_images"] = np.concatenate([images for images, _ in parts])
        expected[f"{split}_labels"] = np.concatenate([labels for _, labels in parts])
        for member, (images, labels) in zip(names, parts, strict=True):
            rows = images.transpose(0, 3, 1, 2).reshape(count, -1)
            if kind == "binary":
                prefix = np.zeros((count, layout.label_bytes), np.uint8)  # coarse label first
                prefix[:, -1] = labels
                members[member] = np.hstack([prefix, rows]).tobytes()
            else:
                members[member] = pickle.dumps(
                    {b"data": rows, layout.labels_key.encode(): labels.tolist()}
                )
    if kind == "binary":
        members[layout.classes] = "\n".join(CLASSES[name]).encode()
    else:
        members[layout.classes] = pickle.dumps({layout.classes_key.encode(): CLASSES[name]})
    members["readme.html"] = b"not wanted"
    write_tar(path, {f"{top}{member}": body for member, body in members.items()})
    return expected


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for member, body in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))


def packed(folder: Path) -> list[tuple[str, bytes]]:
    """The name and content of each picture in the shards of stage fetch."""
    return [
        (name.decode(), (folder / pack.shard_name(shard)).read_bytes()[start : start + size])
        for name, shard, start, size in pack.read_index(folder).tolist()
    ]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_raw(folder: Path, name: str, expected: dict[str, np.ndarray]) -> None:
    raw = folder / "data" / "fetched"
    assert {path.name for path in raw.iterdir()} == {
        "dataset.json",
        *(f"{key}.npy" for key in expected),
    }
    assert json.loads((raw / "dataset.json").read_text()) == {
        "name": name,
        "classes": CLASSES[name],
    }
    for key, array in expected.items():
        found = np.load(raw / f"{key}.npy")
        assert found.dtype == (np.uint8 if key.endswith("images") else np.int64)
        np.testing.assert_array_equal(found, array)


def error(run) -> str:
    """The one line that a failing stage ends with."""
    assert run.returncode == 1
    assert re.fullmatch(r"error: [^\n]*\n", run.stderr), run.stderr
    return run.stderr


@pytest.fixture
def web(tmp_path):
    """A server for the files in `web.folder` at `web.url`; `web.asked` lists the requests."""
    folder = tmp_path / "web"
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            web.asked.append(self.path)

    web = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
    web.folder, web.url, web.asked = folder, f"http://127.0.0.1:{web.server_port}", []
    Thread(target=web.serve_forever, args=(0.01,), daemon=True).start()
    yield web
    web.shutdown()
    web.server_close()


def test_digits_are_built_in(tmp_path):
    """All 1,797 digits come from scikit-learn, their 17 grey levels spread over 0 to 255."""
    run = run_stage(tmp_path, "fetch", fetch={"dataset": "digits"})
    assert run.returncode == 0, run.stderr
    raw = tmp_path / "data" / "fetched"
    assert {path.name for path in raw.iterdir()} == {
        "dataset.json",
        "train_images.npy",
        "train_labels.npy",
    }
    images, labels = np.load(raw / "train_images.npy"), np.load(raw / "train_labels.npy")
    assert (images.shape, images.dtype, labels.shape, labels.dtype) == (
        (1797, 8, 8, 1),
        np.uint8,
        (1797,),
        np.int64,
    )
    assert np.unique(images).tolist() == [round(level * 255 / 16) for level in range(17)]
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert images[0, 0, :, 0].tolist() == [
        0,
        0,
        80,
        207,
        143,
        16,
        0,
        0,
    ]  # 0 0 5 13 9 1 0 0 in the original
    assert json.loads((raw / "dataset.json").read_text()) == {
        "name": "digits",
        "classes": list("0123456789"),
    }


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("kind", ["binary", "python"])
def test_a_copy_in_either_layout_is_read(name, kind, tmp_path):
    """A local archive gives the arrays and class names it was made from, and replaces others."""
    (tmp_path / "data" / "fetched").mkdir(parents=True)
    for old in (
        *("pictures.tar", "pictures-00000.tar", "pictures-00012.tar", "index.npy"),
        *(".pictures-00013.tar.tmp", ".index.npy.tmp"),
    ):
        (tmp_path / "data" / "fetched" / old).write_bytes(b"of a stage that was run by hand")
    expected = cifar(tmp_path / "copy.tar.gz", name, kind)
    source = {"dataset": name, "source": "copy.tar.gz", "sha256": sha256(tmp_path / "copy.tar.gz")}
    run = run_stage(tmp_path, "fetch", fetch=source)
    assert run.returncode == 0, run.stderr
    check_raw(tmp_path, name, expected)


def test_a_copy_needs_its_checksum(tmp_path):
    """A copy without an official or given checksum is refused; the message has its checksum."""
    cifar(tmp_path / "copy.tar.gz", "cifar10", "python")
    real = sha256(tmp_path / "copy.tar.gz")
    message = error(run_stage(tmp_path, "fetch", fetch={"source": "copy.tar.gz"}))
    assert "copy.tar.gz is not the expected file (params.yaml, fetch.sha256)" in message
    assert real in message
    assert not (tmp_path / "data").exists()
    message = error(
        run_stage(tmp_path, "fetch", fetch={"source": "copy.tar.gz", "sha256": "0" * 64})
    )
    assert real in message
    assert not (tmp_path / "data").exists()


def test_an_address_is_downloaded_once_and_verified(web, tmp_path):
    """A download is kept in .downloads and used again, unless it is damaged."""
    expected = cifar(web.folder / "copy.tar.gz", "cifar10", "binary")
    source = {"source": f"{web.url}/copy.tar.gz", "sha256": sha256(web.folder / "copy.tar.gz")}
    assert run_stage(tmp_path, "fetch", fetch=source).returncode == 0
    check_raw(tmp_path, "cifar10", expected)
    cached = tmp_path / ".downloads" / "copy.tar.gz"
    before = content(tmp_path / "data")
    assert run_stage(tmp_path, "fetch", fetch=source).returncode == 0
    assert web.asked == ["/copy.tar.gz"]
    cached.write_bytes(cached.read_bytes()[:-1])
    assert run_stage(tmp_path, "fetch", fetch=source).returncode == 0
    assert web.asked == ["/copy.tar.gz"] * 2
    assert cached.read_bytes() == (web.folder / "copy.tar.gz").read_bytes()
    assert content(tmp_path / "data") == before


@pytest.mark.parametrize("dataset", ["cifar10", "images"])
def test_an_address_needs_a_checksum(dataset, web, tmp_path):
    """A download without `sha256` is refused with its checksum, also if it has pictures."""
    cifar(web.folder / "copy.tar.gz", "cifar10", "binary")
    message = error(
        run_stage(tmp_path, "fetch", fetch={"dataset": dataset, "source": f"{web.url}/copy.tar.gz"})
    )
    assert f"trust this file, set fetch.sha256 to {sha256(web.folder / 'copy.tar.gz')}" in message
    assert not (tmp_path / "data").exists()


def test_a_wrong_download_is_refused(web, tmp_path):
    """A download with another checksum than the given one is refused and deleted."""
    (web.folder / "copy.tar.gz").write_bytes(b"<html>Please log in</html>")
    message = error(
        run_stage(tmp_path, "fetch", fetch={"source": f"{web.url}/copy.tar.gz", "sha256": "0" * 64})
    )
    assert sha256(web.folder / "copy.tar.gz") in message
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / ".downloads" / "copy.tar.gz").exists()


def test_mirrors_are_tried_in_turn(web, tmp_path):
    """The official archive comes from the first of CIFAR_MIRRORS that has the right file."""
    (web.folder / "a").mkdir()
    (web.folder / "a" / "cifar-100-binary.tar.gz").write_bytes(b"<html>Please log in</html>")
    (web.folder / "b").mkdir()
    expected = cifar(web.folder / "b" / "cifar-100-binary.tar.gz", "cifar100", "binary")
    source = {"dataset": "cifar100", "sha256": sha256(web.folder / "b" / "cifar-100-binary.tar.gz")}
    run = run_stage(
        tmp_path, "fetch", fetch=source, env={"CIFAR_MIRRORS": f"{web.url}/a/ {web.url}/b"}
    )
    assert run.returncode == 0, run.stderr
    check_raw(tmp_path, "cifar100", expected)
    assert [path[:3] for path in web.asked] == ["/a/", "/a/", "/a/", "/b/"]


@pytest.mark.fault
def test_without_a_mirror_two_ways_on_are_named(web, tmp_path):
    """If no mirror has the archive, the message says what went wrong and what else to try."""
    run = run_stage(
        tmp_path,
        "fetch",
        env={"CIFAR_MIRRORS": f"{web.url}/a/ {web.url}/b/"},
        fetch={"dataset": "cifar10"},
    )
    message = error(run)
    for part in ("/a/cifar-10-binary.tar.gz: HTTP 404; ", "/b/cifar-10-binary.tar.gz: HTTP 404)"):
        assert f"{web.url}{part}" in message
    assert "set fetch.source to the path or URL of a copy, or fetch.dataset to digits" in message
    assert not (tmp_path / "data").exists()


FILES = {
    "train/cat/1.png": b"1",
    "train/cat/2.png": b"2",
    "train/dog/1.png": b"3",
    "test/dog/ä.png": b"4",
    "train/dog/.DS_Store": b"5",
}


def test_pictures_are_the_same_from_a_folder_and_from_archives(tmp_path):
    """Folder, tar.gz and zip of the same pictures give the same bytes; paths start at the root."""
    for name, body in FILES.items():
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pets" / name).write_bytes(body)
    with tarfile.open(tmp_path / "pets.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "pets", "pets")
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as made:
        for name, body in reversed(FILES.items()):
            made.writestr(name, body)
    for source in ("pets", "pets.tar.gz", "./pets.zip"):
        (tmp_path / "copy").mkdir(exist_ok=True)
        env = {"DVC_ROOT": str(tmp_path)}
        run = run_stage(
            tmp_path / "copy", "fetch", fetch={"dataset": "images", "source": source}, env=env
        )
        assert run.returncode == 0, run.stderr
        assert ("DVC does not watch" in run.stdout) == (source == "pets")
        raw = tmp_path / "copy" / "data" / "fetched"
        expected = sorted((name, body) for name, body in FILES.items() if ".DS_Store" not in name)
        assert packed(raw) == expected
        assert json.loads((raw / "dataset.json").read_text()) == {
            "name": "images",
            "classes": ["cat", "dog"],
        }


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            {"dataset": "images", "source": "~nobody-of-this-name/x"},
            "no such file or folder: ~nobody-of-this-name/x",
        ),
        (
            {"dataset": "images", "source": "nowhere"},
            "no such file or folder: nowhere (params.yaml, fetch.source)",
        ),
        (
            {"dataset": "cifar10", "source": "pets"},
            "file data_batch_1.bin not found (pets): this is not CIFAR in an official layout; for",
        ),
        ({"dataset": "images", "source": "evil.tar"}, "member 'train/cat/link' is a link"),
        (
            {"dataset": "cifar10", "source": "evil.tar", "sha256": True},
            "member 'train/cat/link' is a link",
        ),
        (
            {"dataset": "cifar100", "source": "cifar10.tar.gz", "sha256": True},
            "file train.bin not found (cifar10.tar.gz): this is not CIFAR",
        ),
    ],
)
def test_a_source_that_cannot_serve_is_reported(source, message, tmp_path):
    """A missing file, a hostile archive and another data set are refused; nothing is written."""
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        info = tarfile.TarInfo("train/cat/link")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    cifar(tmp_path / "cifar10.tar.gz", "cifar10", "binary")
    (tmp_path / "pets" / "cat").mkdir(parents=True)
    (tmp_path / "pets" / "cat" / "1.png").write_bytes(b"")
    if "sha256" in source:
        source = source | {"sha256": sha256(tmp_path / source["source"])}
    assert message in error(run_stage(tmp_path, "fetch", fetch=source))
    assert not (tmp_path / "data").exists()


def unpacked(folder: Path, name: str, kind: str) -> dict[str, np.ndarray]:
    """Unpack an archive into a folder, as a user does, and return its arrays."""
    folder.mkdir(parents=True)
    archive = folder.parent / "archive.tar.gz"
    expected = cifar(archive, name, kind, top="")
    with tarfile.open(archive) as tar:
        for info in tar:
            (folder / info.name).write_bytes(tar.extractfile(info).read())
    archive.unlink()
    return expected


@pytest.mark.hostile
@pytest.mark.parametrize("kind", ["binary", "python"])
def test_an_unpacked_cifar_is_read(kind, tmp_path):
    """The official folder is read like its archive, also with other files and folders around."""
    expected = unpacked(tmp_path / "torch" / "cifar-10-batches", "cifar10", kind)
    (tmp_path / "torch" / "cifar-10-python.tar.gz").write_bytes(b"the archive beside it")
    for source in ("torch/cifar-10-batches", "torch"):
        run = run_stage(tmp_path, "fetch", fetch={"dataset": "cifar10", "source": source})
        assert run.returncode == 0, run.stderr
        assert f"note: a folder has no checksum: {source} is used as it is" in run.stdout
        check_raw(tmp_path, "cifar10", expected)


@pytest.mark.hostile
def test_a_cifar_archive_without_its_folder_is_read(tmp_path):
    """An archive that was packed from inside the official folder is read as well."""
    expected = cifar(tmp_path / "copy.tar.gz", "cifar10", "python", top="")
    source = {"source": "copy.tar.gz", "sha256": sha256(tmp_path / "copy.tar.gz")}
    assert run_stage(tmp_path, "fetch", fetch=source).returncode == 0
    check_raw(tmp_path, "cifar10", expected)


def small_pictures(folder: Path, *names: str) -> dict[str, bytes]:
    """Write files in place of pictures; the stage does not look into them."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return content(folder)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("data/fetched", "data/fetched"),
        ("data/processed/train", "data/processed/train"),
        ("models/mine", "models"),
        ("data/fetched/mine", "data"),
        ("data/fetched/mine", "."),
        ("data/processed", "link"),
    ],
)
def test_the_users_files_are_never_deleted(place, source, tmp_path):
    """A source inside or around a folder of outputs is refused, and no file is lost."""
    before = small_pictures(tmp_path / place, "cat/1.png", "dog/1.png")
    (tmp_path / "link").symlink_to(place)
    run = run_stage(tmp_path, "fetch", fetch={"dataset": "images", "source": source})
    message = error(run)
    assert "or is inside it" in message or "not an output of this stage" in message
    assert content(tmp_path / place) == before


@pytest.mark.fault
def test_a_foreign_file_among_the_outputs_is_refused(tmp_path):
    """A user's file in the folder of the outputs, which DVC deletes, is named and stays."""
    small_pictures(tmp_path / "data" / "fetched", "notes.txt", ".DS_Store")
    run = run_stage(tmp_path, "fetch", fetch={"dataset": "digits"})
    assert "not an output of this stage (data/fetched/notes.txt): move it out" in error(run)
    assert content(tmp_path / "data") == {
        "fetched/notes.txt": b"notes.txt",
        "fetched/.DS_Store": b".DS_Store",
    }


@pytest.mark.fault
def test_a_refused_source_leaves_the_outputs_before_it(tmp_path):
    """When run by hand, the stage removes its earlier outputs only if it can write new ones."""
    assert run_stage(tmp_path, "fetch", fetch={"dataset": "digits"}).returncode == 0
    before = content(tmp_path / "data")
    unpacked(tmp_path / "cifar", "cifar10", "python")
    (tmp_path / "cifar" / "test_batch").write_bytes(b"damaged")
    small_pictures(tmp_path / "pets", "cat/1.png", "cat/2.png")
    for dataset, source in (("cifar10", "cifar"), ("images", "pets"), ("images", "nowhere")):
        error(run_stage(tmp_path, "fetch", fetch={"dataset": dataset, "source": source}))
        assert content(tmp_path / "data") == before


@pytest.mark.hostile
def test_what_is_left_out_is_said(tmp_path):
    """Documents and files outside class folders are not packed, and a note names them, escaped."""
    small_pictures(
        tmp_path / "pets", "README.md", "train/cat/1", "train/dog/1", "val/dog/1",
        "val/cat/labels.csv", "test/cat/1", "e\033[2J", "train/9", "train/cat/Thumbs.db",
        "more/cat/1",
    )  # fmt: skip
    run = run_stage(tmp_path, "fetch", fetch={"dataset": "images", "source": "pets"})
    assert run.returncode == 0, run.stderr
    line = r"note: left out, not pictures in class folders: README.md, e\x1b[2J, train/9 and 1 more"
    assert line in run.stdout.splitlines()
    line = "note: left out, outside the train, val and test folders: more/cat/1"
    assert line in run.stdout.splitlines()
    names = [name for name, _ in packed(tmp_path / "data" / "fetched")]
    assert names == ["test/cat/1", "train/cat/1", "train/dog/1", "val/dog/1"]


@pytest.mark.hostile
def test_an_address_from_the_environment(web, tmp_path):
    """FETCH_SOURCE overrides fetch.source, and its secret is never printed or stored."""
    cifar(web.folder / "copy.tar.gz", "cifar10", "binary")
    checksum = sha256(web.folder / "copy.tar.gz")
    env = {"FETCH_SOURCE": f"{web.url}/copy.tar.gz?Signature=5ec2e7"}
    run = run_stage(tmp_path, "fetch", env=env, fetch={"sha256": checksum})
    assert run.returncode == 0, run.stderr
    wrong = run_stage(tmp_path, "fetch", env=env, fetch={"sha256": "0" * 64})
    assert checksum in error(wrong)
    written = b"".join(content(tmp_path).values()).decode("latin-1")
    assert "5ec2e7" not in "".join([run.stdout, run.stderr, wrong.stdout, wrong.stderr, written])


def test_a_mistake_in_the_last_section_stops_the_first_stage(tmp_path):
    """All of params.yaml is checked first: a wrong plot.dpi does not waste an hour of training."""
    message = error(run_stage(tmp_path, "fetch", fetch={"dataset": "digits"}, plot={"dpi": 1}))
    assert "plot.dpi = 1" in message
    assert list(content(tmp_path)) == ["params.yaml"]


@pytest.mark.parametrize("trouble", ["disk is full", "folder is a file"])
def test_trouble_with_the_disk_leaves_nothing(trouble, tmp_path):
    """If writing fails, the stage ends with one line that names the file, and leaves no file."""
    expected = cifar(tmp_path / "copy.tar.gz", "cifar10", "binary")
    assert expected["train_images"].size > 20_000
    if trouble == "folder is a file":
        (tmp_path / "data").write_bytes(b"")
    source = {"source": "copy.tar.gz", "sha256": sha256(tmp_path / "copy.tar.gz")}
    message = error(
        run_stage(
            tmp_path, "fetch", fetch=source, disk=20_000 if trouble == "disk is full" else None
        )
    )
    assert re.search(r"\(data/fetched|\(\.downloads\)", message)
    assert content(tmp_path).keys() - {"data"} == {"params.yaml", "copy.tar.gz"}
