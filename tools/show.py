"""Show all results in one table for each data set, best test accuracy first.

    python -m tools.show        (or make show)

The tables have the experiments of all commits, the commits themselves and the workspace, with the
parameters that differ. A run with several names is shown once.
"""

from cifar import stage  # isort: skip  first, to report errors of the imports below

import shutil
import textwrap
from collections.abc import Iterator, Sequence

import pandas as pd

from cifar import UserError
from cifar.experiments import groups, ranking, table

WIDTH = 100  # columns, if the output is not a terminal
NAME = 28  # characters; a longer name is shortened
GAP = "  "


def main() -> None:
    results, remarks = table.read()
    if not results:
        reasons = f" ({'; '.join(remarks)})" if remarks else ""
        raise UserError(f"no result yet{reasons}: run `dvc repro` or `make demo`")
    width = shutil.get_terminal_size((WIDTH, 24)).columns
    tables = {name: ranking.rank(runs) for name, runs in ranking.by_dataset(results).items()}
    count = sum(map(len, tables.values()))
    print(
        f"{count} result{'s' if count > 1 else ''} of all commits, best test accuracy first; "
        "* is in the workspace"
    )
    for name, ranked in tables.items():
        print(f"\n{name}", *layout(ranked, width), sep="\n")
        remarks = [*aliases(ranked), *remarks]
    if remarks:
        print("", *remarks, sep="\n")


def aliases(ranked: pd.DataFrame) -> Iterator[str]:
    """Yield a line for each run that has several names."""
    for name, also in zip(ranked["name"], ranked["also"], strict=True):
        if also:
            yield f"the same run: {name}, {also}"


def layout(ranked: pd.DataFrame, width: int) -> list[str]:
    """The lines of a table of at most `width` characters; columns that do not fit are listed."""
    marks = ranked["workspace"].map({True: "* ", False: "  "})
    columns = [
        ["", "  experiment", *(marks + ranked["name"].map(shorten))],
        ["", "test", *ranked[ranking.TEST].map(percent)],
        ["", "validation", *ranked[ranking.VAL].map(percent)],
    ]
    parameters = ranking.parameters(ranked)
    for key in parameters:
        section, _, name = key.rpartition(".")
        values = ranked[key].astype(object).where(ranked[key].notna(), "-")
        columns.append([section and f"{section}.", name, *values.map(brief)])
    fitting = columns
    while len(fitting) > 3 and measure(fitting) > width:
        fitting = fitting[:-1]
    lines = [line.rstrip() for line in rows(fitting)]
    hidden = parameters[len(fitting) - 3 :]
    note = f"not shown, as the table would be too wide: {', '.join(hidden)}" if hidden else ""
    notes = textwrap.wrap(note, width, initial_indent="  ", subsequent_indent="    ")
    return [line for line in lines if line] + notes


def measure(columns: Sequence[Sequence[str]]) -> int:
    """The width of a table with these columns, in characters."""
    return sum(max(map(len, column)) for column in columns) + len(GAP) * (len(columns) - 1)


def rows(columns: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield lines of aligned cells: accuracies to the right, everything else to the left."""
    widths = [max(map(len, column)) for column in columns]
    for cells in zip(*columns, strict=True):
        aligned = [
            cell.rjust(width) if number in (1, 2) else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        yield GAP.join(aligned)


def shorten(name: str) -> str:
    return name if len(name) <= NAME else f"{name[: NAME - 1]}…"


def brief(value: str) -> str:
    """Shorten a fraction to four digits, and any other long value to its two ends."""
    try:
        return f"{float(value):.4g}" if "." in value else groups.shorten(value)
    except ValueError:
        return groups.shorten(value)


def percent(fraction: float) -> str:
    return "-" if pd.isna(fraction) else f"{fraction:.2%}".replace("%", " %")


if __name__ == "__main__":
    stage.run(main, __doc__)
