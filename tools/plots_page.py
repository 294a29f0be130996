"""Write a page template for `dvc plots show` and `dvc plots diff` that includes the chart library.

    python -m tools.plots_page

DVC's own page loads its chart library from the web; this one draws all charts offline. The template
is .dvc/plots-page.html, set as `plots.html_template` in .dvc/config.local. Neither file is in Git:
a clone without them uses DVC's page.
"""

from cifar import stage  # isort: skip  first, to report errors of the imports below

import subprocess
from pathlib import Path

import vl_convert

from cifar import UserError, files

PAGE = "plots-page.html"  # DVC looks for it in .dvc
VEGA_LITE = "5.21"  # the schema version of DVC 3's charts
# A chart is as wide as the page, a confusion matrix half as wide; a heading shows its title.
DRAW = """
window.titles = {};
window.vegaEmbed = (target, chart) => {
  const title = chart.title;
  titles[target.slice(1)] = (title && title.text) || title || target.slice(1);
  delete chart.title;
  const size = chart.spec ? [400, 400] : [820, 320];
  const layers = chart.spec ? chart.spec.layer : [];
  for (const view of [chart, ...layers]) if (view.width) [view.width, view.height] = size;
  const actions = {export: true, source: false, compiled: false, editor: false};
  return vegaEmbed(target, chart, {renderer: "svg", actions});
};
"""


def main() -> None:
    files.write_bytes(Path(".dvc") / PAGE, page().encode())
    command = ["dvc", "config", "--quiet", "--local", "plots.html_template", PAGE]
    if subprocess.run(command, check=False).returncode:
        raise UserError("DVC fails, see above (.dvc/config): restore it with `git checkout .dvc`")


def page() -> str:
    """The page with the chart library, and with the placeholders that DVC fills."""
    bundle = vl_convert.javascript_bundle(DRAW, vl_version=VEGA_LITE)
    return Path(__file__).with_suffix(".html").read_text().replace("{bundle}", bundle)


if __name__ == "__main__":
    stage.run(main, __doc__)
