"""A download is correct, or it leaves no file, whatever the server does."""

import hashlib
import socket
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest

from cifar import UserError
from cifar.data.download import download

BODY = bytes(range(256)) * 20
SHA = hashlib.sha256(BODY).hexdigest()

Answer = Callable[[BaseHTTPRequestHandler], None]


def reply(
    server: BaseHTTPRequestHandler,
    status: int = 200,
    body: bytes = BODY,
    length: int | None = None,
    **headers: str,
):
    """Send a status, headers and a body; `length` is the announced length, -1 for none."""
    server.send_response(status)
    if length != -1:
        server.send_header("Content-Length", str(len(body) if length is None else length))
    for name, value in headers.items():
        server.send_header(name.replace("_", "-"), value)
    server.end_headers()
    server.wfile.write(body)


class Mirror:
    """A local server that gives the listed answers, one per request, then repeats the last."""

    def __init__(self, *answers: Answer) -> None:
        self.answers, self.requests, self.done = list(answers), [], Event()
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = mirror.answers[min(len(mirror.requests), len(mirror.answers) - 1)]
                mirror.requests.append(self.headers)
                answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None
        self.url = f"http://127.0.0.1:{self.server.server_port}/archive.tar.gz"
        Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def stall(self, server: BaseHTTPRequestHandler) -> None:
        reply(server, body=BODY[:100], length=len(BODY))
        self.done.wait(600)

    def close(self) -> None:
        self.done.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def serve() -> Iterator[Callable[..., Mirror]]:
    mirrors: list[Mirror] = []
    yield lambda *answers: mirrors.append(Mirror(*answers)) or mirrors[-1]
    for mirror in mirrors:
        mirror.close()


def names(folder: Path) -> list[str]:
    """The names of everything in the folder, including hidden files."""
    return [path.name for path in folder.iterdir()]


def redirect(server: BaseHTTPRequestHandler, to: str = "/again") -> None:
    reply(server, 302, b"", Location=to)


def fetch(
    folder: Path,
    *urls: str,
    sha256: str | None = SHA,
    size: int | None = None,
    timeout: float = 50.0,
) -> str:
    return download(urls, folder / "archive", sha256, size, timeout=timeout, pause=0.001)


def failure(folder: Path, *urls: str, **options) -> str:
    """The message of a download that fails and leaves the folder empty."""
    with pytest.raises(UserError) as caught:
        fetch(folder, *urls, **options)
    assert names(folder) == []
    assert "\n" not in str(caught.value)
    assert all(url in str(caught.value) for url in urls)
    return str(caught.value)


def test_a_good_file_arrives(serve, tmp_path):
    """The content of the address arrives at the target, and nothing else in its folder."""
    mirror = serve(reply)
    assert fetch(tmp_path / "new", mirror.url, size=len(BODY)) == SHA
    assert (tmp_path / "new" / "archive").read_bytes() == BODY
    assert names(tmp_path / "new") == ["archive"]
    assert len(mirror.requests) == 1


def test_without_a_checksum_any_content_is_taken(serve, tmp_path):
    """Without a checksum, any content is accepted, and its checksum is returned."""
    assert fetch(tmp_path, serve(partial(reply, length=-1)).url, sha256=None) == SHA
    assert (tmp_path / "archive").read_bytes() == BODY


def test_a_packed_file_stays_packed(serve, tmp_path):
    """A .tar.gz that the server calls gzip-encoded arrives as it is."""
    mirror = serve(partial(reply, Content_Encoding="gzip"))
    assert fetch(tmp_path, mirror.url) == SHA
    assert mirror.requests[0]["Accept-Encoding"] == "identity"


PAGE = b"<html>Please log in</html>"
FAULTS = {
    "cut": (partial(reply, body=BODY[:-1], length=len(BODY)), {}, "connection lost", 3),
    "cut, no length": (
        partial(reply, body=BODY[:-1], length=-1),
        {},
        hashlib.sha256(BODY[:-1]).hexdigest(),
        3,
    ),
    "cut, known size": (
        partial(reply, body=BODY[:-1], length=-1),
        {"size": len(BODY)},
        "closed after 5119 of 5120",
        3,
    ),
    "wrong content": (partial(reply, body=BODY[::-1]), {}, "wrong content, sha256", 3),
    "a page, known size": (
        partial(reply, body=PAGE),
        {"size": len(BODY)},
        "26 bytes announced instead of 5120",
        3,
    ),
    "a page": (partial(reply, body=PAGE), {}, f"sha256 {hashlib.sha256(PAGE).hexdigest()}", 3),
    "more than announced": (
        partial(reply, body=BODY + b"x", length=-1),
        {"size": len(BODY)},
        "more than the 5120",
        3,
    ),
    "more than wanted": (
        partial(reply, body=BODY + b"x"),
        {"size": len(BODY)},
        "5121 bytes announced",
        3,
    ),
    "not there": (partial(reply, status=404), {}, "HTTP 404", 1),
    "forbidden": (partial(reply, status=403), {}, "HTTP 403", 1),
    "too many requests": (partial(reply, status=429), {}, "HTTP 429", 3),
    "broken": (partial(reply, status=500), {}, "HTTP 500", 3),
    "circle": (redirect, {}, "too many redirects", 31),
    "redirect to nowhere": (partial(redirect, to="http://[x"), {}, "not a web address", 1),
    "redirect to a file": (partial(redirect, to="file:///etc/passwd"), {}, "not a web address", 1),
    "no HTTP": (lambda server: server.wfile.write(b"hello\r\n\r\n"), {}, "connection lost", 3),
    "silence": (lambda server: None, {}, "connection lost", 3),
}


VARIANTS = ("cut, known size", "a page, known size", "more than wanted", "redirect to nowhere")


@pytest.mark.parametrize(
    "fault",
    [pytest.param(name, marks=() if name in VARIANTS else pytest.mark.fault) for name in FAULTS],
)
def test_a_fault_leaves_nothing_behind(fault, serve, tmp_path):
    """No file is left, the message says what went wrong, and temporary failures are retried."""
    answer, options, problem, requests = FAULTS[fault]
    mirror = serve(answer)
    assert f"{mirror.url}: " in (message := failure(tmp_path, mirror.url, **options))
    assert problem in message
    assert len(mirror.requests) == requests
    assert fetch(tmp_path, mirror.url, serve(reply).url) == SHA, (
        "with a good mirror after it, the file arrives"
    )


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.parametrize("when", ["in the middle", "from the start"])
def test_a_server_that_stalls_is_given_up(when, serve, tmp_path):
    """A server that falls silent is given up after the timeout, and the next mirror is tried."""
    silent = serve(
        lambda server: silent.stall(server) if when == "in the middle" else silent.done.wait(600)
    )
    assert "no answer in time" in failure(tmp_path, silent.url, timeout=0.1)
    assert fetch(tmp_path, silent.url, serve(reply).url, timeout=1.0) == SHA


@pytest.mark.fault
@pytest.mark.parametrize("what", ["a port where nobody listens", "a name that nobody has"])
def test_no_network(what, serve, tmp_path):
    """A server that cannot be reached is reported in one line, and the next mirror is tried."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        host = (
            f"127.0.0.1:{closed.getsockname()[1]}"
            if what.startswith("a port")
            else "nobody.invalid"
        )
    assert "no connection" in failure(tmp_path, f"http://{host}/a")
    assert fetch(tmp_path, f"http://{host}/a", serve(reply).url) == SHA


def test_what_is_no_web_address_is_reported(tmp_path):
    """An address with another scheme than HTTP, or with none, is reported."""
    assert failure(tmp_path, "ftp://127.0.0.1/a", "archive.tar.gz").count("not a web address") == 2


@pytest.mark.fault
def test_the_next_mirror_takes_over(serve, tmp_path):
    """The file comes from the first good mirror, and those after it are not tried."""
    bad = [
        serve(partial(reply, status=404)),
        serve(partial(reply, status=500)),
        serve(partial(reply, body=PAGE)),
    ]
    good, spare = serve(reply), serve(reply)
    assert fetch(tmp_path, *(mirror.url for mirror in [*bad, good, spare])) == SHA
    assert [len(mirror.requests) for mirror in [*bad, good, spare]] == [1, 3, 3, 1, 0]
    assert names(tmp_path) == ["archive"]


@pytest.mark.fault
@pytest.mark.parametrize("kind", ["503 twice", "cut, then wrong"])
def test_a_short_outage_is_outlasted(kind, serve, tmp_path):
    """After two temporary failures, the third attempt succeeds."""
    outage = partial(reply, status=503)
    first = (
        (outage, outage) if kind == "503 twice" else (FAULTS["cut"][0], FAULTS["wrong content"][0])
    )
    assert fetch(tmp_path, serve(*first, reply).url) == SHA


def test_the_pauses_double(serve, tmp_path, monkeypatch):
    """The pause between attempts on one mirror doubles; there is none after the last attempt."""
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    with pytest.raises(UserError):
        download([serve(partial(reply, status=500)).url], tmp_path / "archive", SHA, pause=1.0)
    assert pauses == [1.0, 2.0]


def test_a_failed_download_keeps_the_file_that_was_there(serve, tmp_path):
    """An older file at the target stays until a correct one replaces it."""
    (tmp_path / "archive").write_bytes(b"old")
    with pytest.raises(UserError):
        fetch(tmp_path, serve(partial(reply, status=404)).url)
    assert (tmp_path / "archive").read_bytes() == b"old"
    fetch(tmp_path, serve(reply).url)
    assert (tmp_path / "archive").read_bytes() == BODY


@pytest.mark.fault
def test_an_error_of_the_disk_names_the_target(serve, tmp_path, monkeypatch):
    """An error of the disk ends the download at once, names the file and leaves nothing."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    mirror = serve(reply)
    with pytest.raises(OSError, match="No space left") as caught:
        fetch(tmp_path, mirror.url)
    assert caught.value.filename == str(tmp_path / "archive")
    assert names(tmp_path) == []
    assert len(mirror.requests) == 1
