"""tools/plots_page.py: the page that `dvc plots show` and `diff` fill, drawn without a network."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from tools import plots_page

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
OPTIONS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-sync", "--disable-background-networking", "--disable-component-update"),
    *("--virtual-time-budget=20000", "--window-size=1280,2000", "--dump-dom"),
]
# Added to a page: what a browser made of it, as text that a test finds again.
PROBE = """<pre id="probe"></pre><script>addEventListener("load", () => setTimeout(() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const asked = performance.getEntriesByType("resource").map((entry) => entry.name);
  document.getElementById("probe").textContent = JSON.stringify({
    headings: all("section h2").map((heading) => heading.textContent),
    charts: all("section.chart").map((chart) => chart.querySelectorAll("svg.marks path").length),
    pictures: all("section.pictures").map((plot) => plot.querySelectorAll("figure").length),
    broken: all("img").filter((image) => !image.naturalWidth).length,
    too_wide: document.documentElement.scrollWidth > innerWidth,
    asked: asked.filter((name) => !/^(file|data|blob):/.test(name)),
  });
}, 5000))</script>"""


class Tags(HTMLParser):
    """Every tag of a page with its attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def shown(page, profile):
    """What a browser that reaches no host shows of the page."""
    probed = page.with_name("probed.html")
    before, end, after = page.read_text().rpartition("</body>")  # the library has one, too
    probed.write_text(before + PROBE + end + after)
    offline = ["--host-resolver-rules=MAP * 127.0.0.1:9", f"--user-data-dir={profile}"]
    done = subprocess.run(
        [CHROMIUM, *OPTIONS, *offline, probed.as_uri()], capture_output=True, text=True, timeout=600
    )
    found = re.search(r'<pre id="probe">(\{.*?\})</pre>', done.stdout)
    assert found, done.stderr[-2000:]
    return json.loads(found[1])


@pytest.fixture(scope="module")
def page():
    return plots_page.page()


def test_the_page_loads_nothing(page):
    """No tag of the page names a file or an address, and its policy forbids all other sources."""
    tags = Tags(page).found
    assert not [attrs for _, attrs in tags if attrs.keys() & {"src", "href", "srcset", "data"}]
    (policy,) = [attrs["content"] for tag, attrs in tags if "http-equiv" in attrs]
    sources = set(re.findall(r"\S+:(?=[ ;]|$)|https?:\S*|\*", policy))
    assert policy.startswith("default-src 'none'") and sources == {"file:", "data:", "blob:"}
    assert "url(" not in re.search("<style>.*?</style>", page, re.DOTALL)[0]


def test_the_page_leaves_the_placeholders_to_dvc(page):
    """DVC's places for charts and for reloading are there once, the one for its scripts is not."""
    places = [page.count(f"{{{name}}}") for name in ("plot_divs", "refresh_tag", "scripts")]
    assert places == [1, 1, 0]


def test_dvc_takes_the_page(dropout_run, tmp_path):
    """The program sets the page for this clone alone; DVC fills it, and Git sees no change."""
    project = dropout_run.project.copy(tmp_path / "project")
    before = project.run("git", "status", "--porcelain").stdout
    project.run("python", "-m", "tools.plots_page")
    assert project.run("git", "status", "--porcelain").stdout == before
    project.run("dvc", "plots", "diff")
    page = (project.path / "dvc_plots/index.html").read_text()
    assert "cdn.jsdelivr.net" not in page
    assert page.count("vegaEmbed('#") >= 3
    project.run("git", "clone", "--quiet", ".", "clone")
    assert not (project.path / "clone/.dvc/plots-page.html").exists()


@pytest.mark.skipif(not CHROMIUM, reason="no chromium here")
@pytest.mark.parametrize("revisions", [1, 2])
def test_a_browser_without_network_draws_every_chart(dropout_run, tmp_path, revisions):
    """Every chart has marks and a heading, every picture loads once for each revision, and nothing
    is asked of a network."""
    project = dropout_run.project.copy(tmp_path / "project")
    project.run("python", "-m", "tools.plots_page")
    project.run("dvc", "plots", "show" if revisions == 1 else "diff")
    page = project.path / "dvc_plots/index.html"
    filled = page.read_text().rpartition("<main>")[2]
    charts, pictures = filled.count("vegaEmbed('#"), filled.count("<img src=")
    found = shown(page, tmp_path / "profile")
    assert len(found["charts"]) == charts and min(found["charts"]) > 0
    assert sum(found["pictures"]) == pictures and set(found["pictures"]) == {revisions}
    assert len(found["headings"]) == len(found["charts"]) + len(found["pictures"])
    assert all(found["headings"])
    assert (found["broken"], found["asked"], found["too_wide"]) == (0, [], False)
