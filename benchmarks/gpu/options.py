"""Run all measurements on a GPU, in slices of minutes; writes tables as Markdown and JSON.

    python -m benchmarks gpu                      measure for the next nine minutes
    python -m benchmarks gpu smoke speed          measure only these parts
    python -m benchmarks gpu --list               list the parts, the most valuable first
    python -m benchmarks gpu -S fetch.source=/path/to/archive -S fetch.sha256=SUM
    python -m benchmarks gpu --device cpu --tiny  try every part without a GPU

A rented GPU may be available for minutes only. When they are over, run the same command again to
continue: finished steps are kept, and a training resumes from its last checkpoint. A step that
fails does not stop the others; the next call tries it again, after all others.

The results are results.md and results.json in runs/gpu/CARD/. To continue on another machine, copy
that folder there.

It needs neither Git nor DVC, only torch (2.11 or newer), torchvision, numpy, pillow, pandas,
matplotlib, scikit-learn, safetensors, tqdm, filelock, pyyaml, pydantic and ruamel.yaml.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    default = "(default: %(default)s)"
    add("parts", nargs="*", metavar="PART", help="parts to measure (default: all)")
    add("--list", action="store_true", help="list the parts, and measure nothing")
    add("--minutes", type=float, default=9.0, help="time to measure (default: %(default)g)")
    add("--device", choices=["cuda", "cpu"], default="cuda", help=f"cpu is for trials {default}")
    add("--tiny", action="store_true", help="use the built-in digits and small sizes")
    add("--out", type=Path, default=Path("runs/gpu"), help=f"the folder of results {default}")
    add("--airbench", type=Path, default=Path("../cifar10-airbench"), metavar="FOLDER",
        help=f"a clone of KellerJordan/cifar10-airbench {default}")  # fmt: skip
    add("-S", "--set-param", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="a parameter of fetch")  # fmt: skip
