"""Write the page that `dvc plots show` and `dvc plots diff` fill, with the chart library inside.

    python -m tools.plots_page

DVC's own page loads its chart library from the web; this one draws all charts offline. It is
.dvc/plots-page.html, and `plots.html_template` in .dvc/config.local names it. Both stay out of Git:
a clone without them has DVC's page.
"""

from cifar import stage  # isort: skip  first, to report errors of the imports below

import subprocess
from pathlib import Path

import vl_convert

from cifar import UserError, files

PAGE = "plots-page.html"  # in .dvc, to which DVC takes such names as relative
VEGA_LITE = "5.21"  # of the schema that the charts of DVC 3 are written for
# Charts use the width of the page, two confusion matrices side by side; a heading shows the title.
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
    """The page with the chart library in it and DVC's placeholders left for DVC."""
    bundle = vl_convert.javascript_bundle(DRAW, vl_version=VEGA_LITE)
    return Path(__file__).with_suffix(".html").read_text().replace("{bundle}", bundle)


if __name__ == "__main__":
    stage.run(main, __doc__)
