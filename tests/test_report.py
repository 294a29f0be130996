"""tools/report.py: one page that shows a finished run, offline, also on a phone."""

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import modelfile
import pandas as pd
import pytest
from finished import make as make_finished
from PIL import Image

from cifar import UserError
from stages import evaluate, plot
from tools import report

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
PROBE = """<script>addEventListener("load", () => parent.postMessage(JSON.stringify({
width: innerWidth, needed: document.documentElement.scrollWidth,
cut: [...document.querySelectorAll(".wrap")]
  .filter(w => innerWidth > 600 && w.scrollWidth > w.clientWidth).length,
pictures: document.images.length,
broken: [...document.images].filter(i => !i.complete || !i.naturalWidth).length,
asked: performance.getEntriesByType("resource")
  .filter(e => !e.name.startsWith("data:")).length}), "*"))</script>"""
FRAMES = """<iframe src="probed.html" style="width: 390px; height: 800px; border: 0"></iframe>
<iframe src="probed.html" style="width: 1280px; height: 800px; border: 0"></iframe>
<pre id="found"></pre>
<script>addEventListener("message", e =>
  document.getElementById("found").append(e.data + "\\n"))</script>"""


class Page(HTMLParser):
    """The images, the tags and the text of a page."""

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
    """Run the command in a project's folder; returns the page that it writes."""

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
    """It has the result with its interval, changes since the commit, charts, classes, times, rank.

    It requests nothing from a network.
    """
    page = make(dropout_run.project)
    test = json.loads((dropout_run.project.path / "metrics/test.json").read_text())["test"]
    low = f"{100 * test['accuracy_low']:.2f} %"
    assert f"95 % interval {low} to {100 * test['accuracy_high']:.2f} %" in page.text
    assert f"calibration error {100 * test['raw_calibration_error']:.1f} points before" in page.text
    changes = re.search(r"committed this result (.*?) Learning curves", page.text)[1]
    assert changes == "train.dropout 0.0 0.3"
    assert len(page.images) == 5 + min(24, 200 - round(200 * test["accuracy"])) + 10
    for image in page.images:
        assert image["alt"]
        content = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"))
        Image.open(io.BytesIO(content)).verify()
    assert re.search(r"training validation test 0 18 2 20 1 18 2 20 .* 9 18 2 20", page.text)
    times = re.search(
        r"stage seconds fetch (\S+) preprocess (\S+) train (\S+) evaluate (\S+) plot (\S+)",
        page.text,
    )
    assert all(0 < float(time) < 300 for time in times.groups())
    shown = dropout_run.project.run("git", "show", "HEAD:metrics/test.json").stdout
    rank = 1 if test["accuracy"] >= json.loads(shown)["test"]["accuracy"] else 2
    # Two runs: HEAD and `more`, which is what the workspace shows.
    assert f"number {rank} of 2 on digits, by test accuracy" in page.text
    assert re.search(r"more \S+ % \S+ % train.dropout 0.3", page.text)
    assert "different runs" not in page.text and "another model" not in page.text
    addresses = [
        value for _, attrs in page.tags for name, value in attrs.items() if name in ("src", "href")
    ]
    assert all(value.startswith("data:") for value in addresses)
    text = (tmp_path / "page.html").read_text()
    assert "url(" not in text and "script" not in {tag for tag, _ in page.tags}


def test_the_page_without_git(reproduced, make):
    """Without Git there are no comparisons, and a line says so.

    No time is shown for an output that has changed since.
    """
    assert "None: this is the result of the committed params.yaml" in make(reproduced).text
    shutil.rmtree(reproduced.path / ".git")
    reproduced.edit("metrics/train.json", lambda text: text.replace('"epoch"', '"hcope"'))
    page = make(reproduced)
    assert "Git has no params.yaml here" in page.text
    assert "DVC has no finished run here" in page.text
    assert re.search(r"train not known evaluate \S+ plot \d", page.text)


def test_a_result_without_mistakes(reproduced, make):
    """Without mistakes, the page has no section about them."""
    path = reproduced.path / "plots/predictions.csv"
    rows = pd.read_csv(path, dtype=str)
    path.unlink()  # it may be a link into DVC's cache
    rows.assign(predicted=rows["actual"]).to_csv(path, index=False)
    page = make(reproduced)
    assert "No mistakes on the test images" in page.text
    assert "confident mistakes" not in page.text


def test_numbers_of_another_model_are_left_out(reproduced, make):
    """If metrics/test.json belongs to another model, the page has no test result and says why."""
    accuracy = json.loads((reproduced.path / "metrics/test.json").read_text())["test"]["accuracy"]
    reproduced.edit(
        "metrics/test.json", lambda text: re.sub('"[0-9a-f]{12}"', '"0123456789ab"', text)
    )
    page = make(reproduced)
    assert "metrics/test.json belongs to another model, so its numbers are left out" in page.text
    header = page.text.partition("Parameters that differ")[0]
    assert f"{100 * accuracy:.2f} % of" not in header and "test accuracy" not in header
    assert "Confusion" not in page.text and "not yet tested" in page.text
    assert "Learning curves" in page.text and len(page.images) == 1 + 10


def test_stale_stages_are_named(reproduced, make):
    """A stage whose inputs changed since it ran is named above the numbers."""
    reproduced.edit(
        "dvc.lock",
        lambda text: re.sub(
            r"(path: plots/predictions.csv\n +hash: md5\n +md5: )\w+", r"\1new", text, count=1
        ),
    )
    assert "different runs: stage plot has not run since" in make(reproduced).text


@pytest.mark.slow
@pytest.mark.hostile
def test_a_class_name_is_text(tmp_path, monkeypatch):
    """A class may have any printable name: the page shows it as text, and never as markup."""
    names = ("<i>&", "$a_b$", "a|b", "\\", "🐈", '"><script>')
    make_finished(tmp_path, modelfile.record(classes=names))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "output", lambda *_: None)
    monkeypatch.setattr(report, "experiments", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["report"])
    evaluate.main()
    plot.main()
    plt.close("all")
    report.main()
    page = Page(tmp_path / "report.html")
    assert all(name in page.text for name in names)
    assert not {"i", "script"} & {tag for tag, _ in page.tags}


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("metrics/test.json", "dvc repro --force"),
        ("plots/predictions.csv", "dvc repro --force evaluate"),
        ("plots/classes.csv", "dvc repro --force evaluate"),
    ],
)
def test_damaged_results_are_one_line(path, command, tmp_path, monkeypatch):
    """The message names the file and the command that makes it again."""
    make_finished(tmp_path, modelfile.record())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["report"])
    evaluate.main()
    (tmp_path / path).write_text("{}")
    with pytest.raises(UserError) as caught:
        report.main()
    assert path in str(caught.value) and command in str(caught.value)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("metrics/train.json", "{}"),
        ("metrics/train.json", "[]"),
        ("metrics/train.json", '{"val": {}}'),
        ("metrics/train.json", '{"val": {"accuracy": "high"}}'),
        ("data/processed/report.json", '{"counts": {"train": [1], "val": [1], "test": [1]}}'),
        ("data/processed/report.json", '{"counts": {}}'),
        (
            "data/processed/report.json",
            '{"counts": {"train": [4, 4], "val": [4, 4], "test": [4, 4]}}',
        ),
        ("data/processed/report.json", "[]"),
        ("data/processed/report.json", '{"counts": {"train": 5}}'),
    ],
)
def test_results_of_another_form_are_one_line(path, content, tmp_path, monkeypatch):
    """A JSON file without what the stage writes is named, too."""
    make_finished(tmp_path, modelfile.record())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["report"])
    evaluate.main()
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(content)
    with pytest.raises(UserError, match=rf"\({path}\): `dvc repro --force` makes it again$"):
        report.gather()


def test_without_a_result_there_is_no_page(tmp_path, monkeypatch):
    """If no stage has run, a one-line error says what to do, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["report"])
    with pytest.raises(UserError, match=r"^no result yet \(no models/model.safetensors\): run"):
        report.main()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not CHROMIUM, reason="chromium not found")
def test_a_browser_shows_the_page(first_run, make, tmp_path):
    """At the width of a phone and of a desktop, every image loads and nothing is cut off.

    Nothing is requested from a network.
    """
    make(first_run.project)
    page = (tmp_path / "page.html").read_text()
    (tmp_path / "probed.html").write_text(re.sub("<meta http-equiv=[^>]*>", "", page) + PROBE)
    (tmp_path / "frames.html").write_text(FRAMES)
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    options += " --disable-background-networking --disable-component-update --disable-sync"
    options += " --virtual-time-budget=5000 --dump-dom"
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
        assert one["asked"] == 0 and one["cut"] == 0
