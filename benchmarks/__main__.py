"""What is measured: speed, accuracy against time, memory, and the published recipes in full.

    python -m benchmarks              speed, stages and accuracy (`make bench`), on a quiet machine
    python -m benchmarks speed        the training loop beside a conventional one
    python -m benchmarks stages       time and peak memory of each stage
    python -m benchmarks accuracy     accuracy of the default against time
    python -m benchmarks recipes      published recipes that have no result yet: hours
    python -m benchmarks memory       peak memory and speed of each stage on many large pictures
    python -m benchmarks busy         training beside other work, by how its threads wait
    python -m benchmarks gpu          everything that a GPU must still show, in slices
    python -m benchmarks tables       RESULTS.md, docs/results.md and their pictures, from results/

benchmarks/RESULTS.md keeps the tables of the first three with what was learnt.
"""

from cifar import stage  # isort: skip  first, to report errors of the imports below

import argparse
import sys
from collections.abc import Callable

from benchmarks import busy, machine, memory, pages, pipeline, recipes
from benchmarks.gpu import options as gpu_options

Run = Callable[[argparse.Namespace], None]


def measure_speed(options: argparse.Namespace) -> None:
    """Speed of the training loop, beside a conventional loop and one without loading."""
    from benchmarks import speed  # imports torch, which the other benchmarks do without

    speed.run(options)


def measure_gpu(options: argparse.Namespace) -> None:
    """Everything that a GPU must still show."""
    from benchmarks.gpu import run  # imports torch

    run.run(options)


# What needs a machine that does nothing else.
QUIET = [measure_speed, pipeline.stages, pipeline.accuracy]


def main() -> None:
    options = parse(sys.argv[1:])
    if options.run in QUIET or options.run is None:
        print(f"{machine.describe()}\n")
    for run in [options.run] if options.run else QUIET:
        run(options)


def parse(words: list[str]) -> argparse.Namespace:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m benchmarks", formatter_class=style
    )
    parser.set_defaults(run=None, rounds=5, seconds=6.0, seeds=3)
    commands = parser.add_subparsers(title="benchmarks", metavar="NAME")

    def add(name: str, run: Run, text: str | None = None) -> argparse.ArgumentParser:
        text = text or run.__doc__
        command = commands.add_parser(name, description=text, formatter_class=style)
        command.set_defaults(run=run)
        return command

    timed = add("speed", measure_speed)
    timed.add_argument("--rounds", type=int, default=5, help="of each measurement (%(default)s)")
    timed.add_argument("--seconds", type=float, default=6.0, help="of each (%(default)s)")
    add("stages", pipeline.stages)
    trained = add("accuracy", pipeline.accuracy)
    trained.add_argument("--seeds", type=int, default=3, help="trainings (%(default)s)")
    recipes.add_arguments(add("recipes", recipes.run, recipes.__doc__))
    memory.add_arguments(add("memory", memory.run, memory.__doc__))
    busy.add_arguments(add("busy", busy.run, busy.__doc__))
    gpu_options.add_arguments(add("gpu", measure_gpu, gpu_options.__doc__))
    add("tables", pages.run)
    return parser.parse_args(words)


if __name__ == "__main__":
    stage.run(main)
