"""RESULTS.md, docs/results.md and their charts, generated from results/."""

import argparse

from benchmarks import pictures, results, tables
from cifar import files


def run(options: argparse.Namespace) -> None:
    """Write RESULTS.md, docs/results.md and their charts from results/."""
    runs = tables.read_runs()
    published = results.read_published()
    for page in tables.PAGES:
        files.write_bytes(page, tables.fill(page.read_text(), runs, published).encode())
    for path in pictures.draw(runs, published):
        print(path)
