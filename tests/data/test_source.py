"""Finding a data set: paths, addresses and their secrets, checksums."""

import hashlib
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from cifar import UserError
from cifar.data import datasets, source
from cifar.data.download import without_secrets

HOSTILE = pytest.mark.hostile  # one marked case per input; unmarked cases are variants
BODY = b"pictures"
SHA = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def address(tmp_path, monkeypatch) -> Iterator[str]:
    """The address of a server that returns BODY for pets.zip, and for any name in long/."""
    monkeypatch.setenv("NO_PROXY", "*")

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path.startswith(("/pets.zip", "/long/"))
            self.send_response(200 if found else 403)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path))
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def refusal(*arguments) -> str:
    with pytest.raises(UserError) as caught:
        source.find(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


QUERY = "?X-Amz-Credential=AKIAEXAMPLE&X-Amz-Signature=" + "5ec2e7" * 100


@pytest.mark.slow
@HOSTILE
def test_a_presigned_address_keeps_its_secret(address, tmp_path, capfd):
    """The file is named after the path of the address; no name or message has the query."""
    found = source.find(f"{address}/pets.zip{QUERY}", SHA, None, tmp_path)
    assert found == tmp_path / ".downloads" / "pets.zip"
    assert found.read_bytes() == BODY
    host = address.removeprefix("http://")
    messages = [
        refusal(f"{address}/pets.zip{QUERY}", "0" * 64, None, tmp_path),
        refusal(f"{address}/other.zip{QUERY}", SHA, None, tmp_path),
        refusal(f"http://me:5ec2e7@{host}/other.zip{QUERY}", SHA, None, tmp_path),
        refusal(f"http://[x/a{QUERY}", SHA, None, tmp_path),
        refusal(f"s3://bucket/a{QUERY}", SHA, None, tmp_path),
    ]
    assert "127.0.0.1" in messages[0] and "HTTP 403" in messages[1]
    assert "5ec2e7" not in "".join([*messages, *capfd.readouterr()])


@HOSTILE
@pytest.mark.parametrize("name", ["x" * 4000 + ".zip", "%2e%2e%2fevil.zip", "ä%20%0a.zip", ".zip"])
def test_any_name_of_an_address_becomes_a_file_name(name, address, tmp_path):
    """However long or odd an address is, the download is one file in .downloads."""
    found = source.find(f"{address}/long/{name}", SHA, None, tmp_path)
    assert found.parent == tmp_path / ".downloads"
    assert found.name.endswith("zip") and len(found.name) <= 100
    files = {path.name for path in (tmp_path / ".downloads").iterdir()}
    assert files == {found.name, f".{found.name}.lock"}
    assert found.read_bytes() == BODY


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://example.org/a/b.zip?key=1#part", "https://example.org/a/b.zip"),
        ("https://me:secret@example.org:8080/b", "https://example.org:8080/b"),
        ("http://[x/a?key=secret", "http://[x/a"),
        ("s3://bucket/b?key=secret", "s3://bucket/b"),
        ("archive.tar.gz", "archive.tar.gz"),
    ],
)
def test_an_address_without_its_secrets(url, expected):
    """User, password, query and fragment are removed, also from an invalid address."""
    assert without_secrets(url) == expected


@HOSTILE
@pytest.mark.parametrize(
    ("url", "way"),
    [
        ("s3://bucket/pets.zip", "copy the file first, with `aws s3 cp`"),
        ("gs://bucket/pets.zip", "`gcloud storage cp`"),
        ("ftp://example.org/pets.zip", "`wget`"),
        ("hdfs://example.org/pets.zip", "copy the file first and set fetch.source to the copy"),
        ("://pets.zip", "not a web address"),
    ],
)
def test_other_addresses_say_how_to_copy(url, way, tmp_path):
    """A bucket or another scheme is refused; the message has the command to copy the file."""
    assert way in refusal(url, SHA, None, tmp_path)


def test_a_local_file_and_its_checksum(tmp_path):
    """Pictures need no checksum, but a given one must match; CIFAR needs a known or given one."""
    (tmp_path / "pets.zip").write_bytes(BODY)
    find = partial(source.find, "pets.zip", root=tmp_path)
    assert find(sha256=None, dataset=None) == find(sha256=SHA, dataset=None)
    assert find(sha256=SHA, dataset=datasets.CIFAR10) == tmp_path / "pets.zip"
    for sha256, dataset in (("0" * 64, None), (None, datasets.CIFAR10)):
        message = refusal("pets.zip", sha256, dataset, tmp_path)
        assert "is not the expected file (params.yaml, fetch.sha256)" in message
        assert f"if you trust this file, set fetch.sha256 to {SHA}" in message


def test_a_folder_has_no_checksum(tmp_path):
    """A folder is accepted as it is, and a checksum for it is refused."""
    (tmp_path / "pets").mkdir()
    for dataset in (None, datasets.CIFAR10):
        assert source.find("pets", None, dataset, tmp_path) == tmp_path / "pets"
        assert "a folder has no checksum" in refusal("pets", SHA, dataset, tmp_path)


@pytest.mark.parametrize("name", ["nowhere", "~nobody-of-this-name/x", "a\0b"])
def test_no_such_file(name, tmp_path):
    """A path that does not exist is refused in one line."""
    assert "no such file or folder" in refusal(name, None, None, tmp_path)


def test_a_path_begins_at_the_root(tmp_path, monkeypatch):
    """Relative paths start from the repository; absolute paths and ~ work as usual."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pets").mkdir()
    for name in ("pets", "~/pets", str(tmp_path / "pets")):
        assert source.find(name, None, None, tmp_path).samefile(tmp_path / "pets")


def test_a_download_is_used_again(address, tmp_path):
    """A file with the right checksum is not downloaded again, even from another address."""
    path = Path(tmp_path / ".downloads" / "pets.zip")
    source.find(f"{address}/pets.zip", SHA, None, tmp_path)
    before = path.stat().st_mtime_ns
    source.find("http://nobody.invalid/pets.zip", SHA, None, tmp_path)
    assert path.stat().st_mtime_ns == before
