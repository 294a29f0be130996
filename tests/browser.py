"""A headless browser without network access."""

import json
import re
import shutil
import subprocess

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


def shown(page, profile):
    """Open the page in a browser that reaches no host; return what it shows."""
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
