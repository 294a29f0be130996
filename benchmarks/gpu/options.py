"""Everything that a GPU must still show, in slices: one card's tables as Markdown and JSON.

    python -m benchmarks gpu                      the next nine minutes of it
    python -m benchmarks gpu smoke speed          these parts only
    python -m benchmarks gpu --list               the parts, the most valuable first
    python -m benchmarks gpu -S fetch.source=/path/to/archive -S fetch.sha256=SUM
    python -m benchmarks gpu --device cpu --tiny  a trial of every part without a GPU

Rented GPUs come in slices. When the minutes are over, the same command continues where it stopped:
finished steps are kept, and a training resumes from its last checkpoint. A step that fails stops no
other; it is tried again in the next call, after all others.

Results are in runs/gpu/CARD/: results.md and results.json. To continue on another machine, copy
that folder there.

It needs no Git and no DVC, only torch (2.11 or newer), torchvision, numpy, pillow, pandas,
matplotlib, scikit-learn, safetensors, tqdm, filelock, pyyaml, pydantic and ruamel.yaml.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("parts", nargs="*", metavar="PART", help="which parts (all)")
    add("--list", action="store_true", help="list the parts, and measure nothing")
    add("--minutes", type=float, default=9.0, help="stop after so many (%(default)g)")
    add("--device", choices=["cuda", "cpu"], default="cuda", help="%(default)s, or a trial on cpu")
    add("--tiny", action="store_true", help="built-in digits and small sizes")
    add("--out", type=Path, default=Path("runs/gpu"), help="the results' folder (%(default)s)")
    add("--airbench", type=Path, default=Path("../cifar10-airbench"), metavar="FOLDER",
        help="a clone of KellerJordan/cifar10-airbench (%(default)s)")  # fmt: skip
    add("-S", "--set-param", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
