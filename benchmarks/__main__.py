"""Measure speed, accuracy against time, memory, and the published recipes in full.

    python -m benchmarks              speed, stages and accuracy (`make bench`), on a quiet machine
    python -m benchmarks speed        the training loop, compared with a conventional one
    python -m benchmarks stages       time and peak memory of each stage
    python -m benchmarks accuracy     accuracy of the default against time
    python -m benchmarks recipes      published recipes that have no result yet (takes hours)
    python -m benchmarks memory       peak memory and speed of each stage on many large pictures
    python -m benchmarks busy         training on a busy machine, for several ways of waiting
    python -m benchmarks gpu          all measurements on a GPU, in slices of minutes
    python -m benchmarks tables       RESULTS.md, docs/results.md and their charts, from results/

benchmarks/RESULTS.md has the results, and what was learnt from them.
"""

from cifar import stage  # isort: skip  first, to report errors of the imports below

import argparse
import inspect
import sys
from collections.abc import Callable

from benchmarks import busy, machine, memory, pages, pipeline, recipes
from benchmarks.gpu import options as gpu_options

Run = Callable[[argparse.Namespace], None]


def measure_speed(options: argparse.Namespace) -> None:
    """Measure the speed of the training loop, a conventional loop, and one without data loading."""
    from benchmarks import speed  # imports torch, which most other benchmarks do not need

    speed.run(options)


def measure_gpu(options: argparse.Namespace) -> None:
    """Run all measurements on a GPU."""
    from benchmarks.gpu import run  # imports torch

    run.run(options)


# These need a machine that does nothing else.
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
        text = text or inspect.cleandoc(run.__doc__ or "")
        command = commands.add_parser(name, description=text, formatter_class=style)
        command.set_defaults(run=run)
        return command

    timed = add("speed", measure_speed)
    default = "(default: %(default)s)"
    timed.add_argument("--rounds", type=int, default=5, help=f"number of rounds {default}")
    timed.add_argument(
        "--seconds", type=float, default=6.0, help=f"seconds of each measurement {default}"
    )
    add("stages", pipeline.stages)
    trained = add("accuracy", pipeline.accuracy)
    trained.add_argument("--seeds", type=int, default=3, help=f"number of trainings {default}")
    recipes.add_arguments(add("recipes", recipes.run, recipes.__doc__))
    memory.add_arguments(add("memory", memory.run, memory.__doc__))
    busy.add_arguments(add("busy", busy.run, busy.__doc__))
    gpu_options.add_arguments(add("gpu", measure_gpu, gpu_options.__doc__))
    add("tables", pages.run)
    return parser.parse_args(words)


if __name__ == "__main__":
    stage.run(main)
