"""tools/plots_page.py: the page that `dvc plots show` and `diff` fill, drawn without a network."""

import re
from html.parser import HTMLParser

import pytest
from browser import CHROMIUM, shown

from tools import plots_page


class Tags(HTMLParser):
    """Every tag of a page with its attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def page():
    return plots_page.page()


@pytest.mark.slow
def test_the_page_loads_nothing(page):
    """No tag of the page refers to a file or an address, and its policy forbids all sources."""
    tags = Tags(page).found
    assert not [attrs for _, attrs in tags if attrs.keys() & {"src", "href", "srcset", "data"}]
    (policy,) = [attrs["content"] for tag, attrs in tags if "http-equiv" in attrs]
    sources = set(re.findall(r"\S+:(?=[ ;]|$)|https?:\S*|\*", policy))
    assert policy.startswith("default-src 'none'") and sources == {"file:", "data:", "blob:"}
    assert "url(" not in re.search("<style>.*?</style>", page, re.DOTALL)[0]


@pytest.mark.slow
@pytest.mark.hostile
def test_a_damaged_configuration_of_dvc_is_one_line(project):
    """The page cannot be named in .dvc/config.local then, and one line says what to do."""
    (project.path / ".dvc/config").write_text("[core")
    done = project.run("python", "-m", "tools.plots_page", ok=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: DVC fails, see above (.dvc/config): ")


@pytest.mark.slow
def test_the_page_leaves_the_placeholders_to_dvc(page):
    """The placeholders for charts and for reloading occur once, the one for scripts does not."""
    places = [page.count(f"{{{name}}}") for name in ("plot_divs", "refresh_tag", "scripts")]
    assert places == [1, 1, 0]


def test_dvc_takes_the_page(dropout_run, tmp_path):
    """The program sets the page for this clone only; DVC fills it, and Git sees no change."""
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


@pytest.mark.skipif(not CHROMIUM, reason="chromium not found")
@pytest.mark.parametrize("revisions", [1, 2])
def test_a_browser_without_network_draws_every_chart(dropout_run, tmp_path, revisions):
    """Every chart has marks and a heading, every image loads once for each revision, and nothing
    is requested from a network."""
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
