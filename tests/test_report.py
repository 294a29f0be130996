"""tools/report.py: one page that shows a finished run, without a network, at the width of a telephone too."""

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pandas as pd
import pytest
from PIL import Image

from cifar import UserError
from tools import report

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
PROBE = """<script>addEventListener("load", () => parent.postMessage(JSON.stringify({
width: innerWidth, needed: document.documentElement.scrollWidth, pictures: document.images.length,
broken: [...document.images].filter(i => !i.complete || !i.naturalWidth).length,
asked: performance.getEntriesByType("resource").filter(e => !e.name.startsWith("data:")).length}), "*"))</script>"""
FRAMES = """<iframe src="probed.html" style="width: 390px; height: 800px; border: 0"></iframe>
<iframe src="probed.html" style="width: 1280px; height: 800px; border: 0"></iframe><pre id="found"></pre>
<script>addEventListener("message", e => document.getElementById("found").append(e.data + "\\n"))</script>"""


class Page(HTMLParser):
    """The pictures, the tags and the text of a page."""

    def __init__(self, path):
        super().__init__()
        self.images, self.tags, self.words = [], [], []
        self.feed(path.read_text())
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture
def make(monkeypatch, tmp_path, capsys):
    """The command in a project's folder, and the page that it writes."""

    def run(project):
        for name, value in project.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(project.path)
        monkeypatch.setattr(sys, "argv", ["report", "--out", str(tmp_path / "page.html")])
        report.main()
        assert (tmp_path / "page.html").as_uri() in capsys.readouterr().out
        return Page(tmp_path / "page.html")

    return run


def test_the_page_shows_the_run(dropout_run, make, tmp_path):
    """Result with interval, what differs from the last commit, every picture with its words, each class, the time of
    each stage and the place among the experiments are in the page; and it asks nobody for anything."""
    page = make(dropout_run.project)
    test = json.loads((dropout_run.project.path / "metrics/test.json").read_text())["test"]
    assert (
        f"95 % interval {100 * test['accuracy_low']:.2f} % to {100 * test['accuracy_high']:.2f} %"
        in page.text
    )
    changes = re.search(r"committed this result (.*?) Learning curves", page.text)[1]
    assert changes == "train.dropout 0.0 0.3"
    assert len(page.images) == 5 + min(24, 200 - round(200 * test["accuracy"])) + 10
    for image in page.images:
        assert image["alt"]
        Image.open(
            io.BytesIO(base64.b64decode(image["src"].removeprefix("data:image/png;base64,")))
        ).verify()
    assert re.search(r"training validation test 0 18 2 20 1 18 2 20 .* 9 18 2 20", page.text)
    times = re.search(
        r"stage seconds fetch (\S+) preprocess (\S+) train (\S+) evaluate (\S+) plot (\S+)",
        page.text,
    )
    assert all(0 < float(time) < 300 for time in times.groups())
    before = json.loads(dropout_run.project.run("git", "show", "HEAD:metrics/test.json").stdout)[
        "test"
    ]["accuracy"]
    place = (
        1 if test["accuracy"] >= before else 2
    )  # of HEAD and `more`, which is what the workspace shows
    assert f"number {place} of 2 by test accuracy" in page.text and " more " in page.text
    assert "Not all of one run" not in page.text
    addresses = [
        value for _, attrs in page.tags for name, value in attrs.items() if name in ("src", "href")
    ]
    assert all(value.startswith("data:") for value in addresses)
    assert "url(" not in (tmp_path / "page.html").read_text() and "script" not in {
        tag for tag, _ in page.tags
    }


def test_the_page_without_git_and_of_changed_outputs(reproduced, make):
    """Without Git there are no comparisons, and one line says so; a time is not shown for an output that has changed;
    a class may be called as it likes; a model that the numbers are not of is said; and without mistakes there is no
    section of them."""
    assert "None: this is the result of the committed params.yaml" in make(reproduced).text
    shutil.rmtree(reproduced.path / ".git")
    reproduced.edit("metrics/train.json", lambda text: text.replace('"epoch"', '"hcope"'))
    model = reproduced.path / "models/model.json"
    text = model.read_text().replace('"0",\n    "1"', '"<i>&",\n    "1"')
    model.unlink()  # it may be a link into DVC's cache
    model.write_text(text)
    reproduced.edit(
        "dvc.lock",
        lambda text: re.sub(
            r"(path: models/model.json\n +hash: md5\n +md5: )\w+", r"\1new", text, count=1
        ),
    )
    rows = pd.read_csv(reproduced.path / "plots/predictions.csv", dtype=str)
    (reproduced.path / "plots/predictions.csv").unlink()
    rows.assign(predicted=rows["actual"]).to_csv(
        reproduced.path / "plots/predictions.csv", index=False
    )
    page = make(reproduced)
    assert "Not all of one run: stage plot did not run again" in page.text
    assert "Not one test image was mistaken" in page.text and "confident mistakes" not in page.text
    assert (
        "Git knows no params.yaml here" in page.text
        and "gives none here (no Git, no DVC" in page.text
    )
    assert re.search(
        r"fetch \S+ preprocess \S+ train not known evaluate not known plot \d", page.text
    )
    assert "<i>&" in page.text and "i" not in {tag for tag, _ in page.tags}


def test_without_a_result_there_is_no_page(tmp_path, monkeypatch):
    """Where no stage has run one line says what to do, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["report"])
    with pytest.raises(
        UserError, match=r"^no result yet \(no models/model.json\): run `dvc repro`"
    ):
        report.main()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not CHROMIUM, reason="no chromium here")
def test_a_browser_shows_the_page(first_run, make, tmp_path):
    """In a browser of a telephone's and of a desktop's width every picture loads, nothing is asked of a network, and
    nothing is wider than the window."""
    make(first_run.project)
    page = (tmp_path / "page.html").read_text()
    (tmp_path / "probed.html").write_text(re.sub("<meta http-equiv=[^>]*>", "", page) + PROBE)
    (tmp_path / "frames.html").write_text(FRAMES)
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    options += " --disable-component-update --disable-sync --virtual-time-budget=5000 --dump-dom"
    own = [f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "frames.html").as_uri()]
    done = subprocess.run(
        [CHROMIUM, *options.split(), *own], capture_output=True, text=True, timeout=1200
    )
    found = [
        json.loads(line) for line in re.findall(r"\{.*?\}", done.stdout.partition('id="found">')[2])
    ]
    assert sorted(one["width"] for one in found) == [390, 1280], done.stderr[-2000:]
    for one in found:
        assert one["needed"] <= one["width"]
        assert one["pictures"] == page.count("<img ") > 10 and one["broken"] == 0
        assert one["asked"] == 0
