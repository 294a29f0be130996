"""Compare groups of experiments that differ only by their seed: is a difference real?

    python -m tools.compare                            every group: mean, spread, 95 % interval
    python -m tools.compare train.dropout=0.1 HEAD     two groups or experiments: is it chance?
    python -m tools.compare --metric val.accuracy --over preprocess.fold --plot folds.png

The name of a group lists the parameters in which it differs from the others of its data set. On the
command line, any of its parameters will do, as long as no other group has the same.
"""

from cifar import stage  # isort: skip  first, to report errors of the imports below

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cifar import UserError, files, params
from cifar.evaluation import charts
from cifar.experiments import groups, ranking, statistics, table
from cifar.experiments.groups import Datasets, Groups
from cifar.experiments.statistics import Summary
from cifar.experiments.table import Result

FILES = 3  # the number of changed files to list, at most
BAR: dict[str, Any] = {"lw": 6, "alpha": 0.4, "solid_capstyle": "butt"}
MEAN: dict[str, Any] = {"ms": 18, "mew": 2}
RING: dict[str, Any] = {"ms": 5, "mfc": "none"}


def main() -> None:
    options = parse()
    over = options.over or ["seed"]
    results, remarks = finished(options.metric, options.all_commits)
    check_over(over, results)
    datasets = {
        dataset: groups.group(members, over)
        for dataset, members in ranking.by_dataset(results).items()
    }
    counted, repeated = groups.without_repeats(datasets, over)
    if repeated:
        remarks.insert(0, f"not counted, the same run again: {', '.join(repeated)}")
    if options.pair:
        counted = groups.find_pair(options.pair, datasets, over)
        (pair,) = counted.values()
        remarks = [*compare(pair, over, options.metric), *remarks]
    frame = summarize(counted, options.metric)
    print(f"{options.metric} over {' and '.join(over)}")
    for dataset in counted:
        rows = frame[frame["dataset"] == dataset]
        print(f"\n{dataset}\n\n{layout(rows, options.metric, options.markdown)}")
    remarks += legend(datasets)
    if remarks:
        print("", *remarks, sep="\n")
    if options.csv:
        cells = frame.astype(object).where(frame.notna(), "")
        files.write_csv(options.csv, list(map(str, frame)), cells.itertuples(index=False))
    if options.plot:
        draw(options.plot, frame, counted, options.metric)


def parse() -> argparse.Namespace:
    parser = stage.parser(__doc__)
    add = parser.add_argument
    add("pair", nargs="*", metavar="GROUP", help="two groups or experiments to compare")
    add("--metric", default=ranking.TEST, help="as in `dvc metrics show` (default: %(default)s)")
    text = "a parameter that may differ within a group (default: seed)"
    add("--over", action="append", metavar="KEY", help=text)
    add("-A", "--all-commits", action="store_true", help="include experiments of earlier commits")
    add("--markdown", action="store_true", help="print the tables in Markdown")
    add("--csv", metavar="FILE", help="write the unrounded tables to a file")
    add(
        "--plot", metavar="FILE.png", help="plot every run, and the mean and interval of each group"
    )
    options = parser.parse_args()
    if len(options.pair) not in (0, 2):
        count = stage.plural(len(options.pair), "group")
        raise UserError(f"{count} given (command line): pass two groups, or none for the tables")
    if len(set(options.pair)) == 1:
        problem = f"{options.pair[0]} is given twice"
        raise UserError(f"{problem} (command line): pass two different groups")
    return options


def finished(metric: str, all_commits: bool) -> tuple[list[Result], list[str]]:
    """The runs that have the metric, and a line for each reason why others are left out.

    Raises:
        UserError: no run has the metric.
    """
    results, remarks = table.read(all_commits)
    chosen = [run for run in results if metric in run.metrics]
    if without := [run.name for run in results if metric not in run.metrics]:
        remarks.append(f"left out, without {metric}: {', '.join(without)}")
    if chosen:
        return chosen, remarks
    if results:
        known = dict.fromkeys(key for run in results for key in run.metrics)
        raise UserError(f"no run has {metric} (--metric): choose one of {', '.join(known)}")
    reasons = f" ({'; '.join(remarks)})" if remarks else " (dvc exp show)"
    raise UserError(f"no finished run{reasons}: start one with `dvc exp run`")


def check_over(over: Sequence[str], results: Sequence[Result]) -> None:
    """Check that each of these parameters exists in some run.

    Raises:
        UserError: a parameter does not exist in any run.
    """
    known = dict.fromkeys(key for run in results for key in run.inputs)
    for key in over:
        if key not in known:
            hint = params.did_you_mean(key, known)
            raise UserError(f"no parameter {key}{hint} (--over): choose another")


def summarize(datasets: Datasets, metric: str) -> pd.DataFrame:
    """One row for each group, the best first within its data set."""
    tables = []
    for dataset, sets in datasets.items():
        rows = [
            (dataset, name, *statistics.summarize([run.metrics[metric] for run in members]))
            for name, members in sets.items()
        ]
        unsorted = pd.DataFrame(rows, columns=["dataset", "group", *Summary._fields])
        tables.append(unsorted.sort_values("mean", ascending="loss" in metric, kind="stable"))
    return pd.concat(tables, ignore_index=True)


def number(value: float, metric: str, sign: str = "") -> str:
    """Format accuracies in per cent, their differences in points, and other metrics as they are."""
    if "accuracy" not in metric:
        return f"{value:{sign}.4f}"
    return f"{100 * value:{sign}.2f}{'' if sign else ' %'}"


def layout(rows: pd.DataFrame, metric: str, markdown: bool) -> str:
    """The table as text."""
    cells = [("mean", "std. dev.", "95 % interval", "n", "group")]
    for row in rows.to_dict("records"):
        mean, std, low, high = (
            number(row[name], metric) for name in ("mean", "std", "low", "high")
        )
        single = row["n"] == 1
        interval = f"{low} to {high}"
        if np.isnan(row["low"]):
            interval = "one run: none" if single else "no spread: none"
        cells.append((mean, "-" if single else std, interval, str(row["n"]), row["group"]))
    if markdown:
        lines = ["| " + " | ".join(line) + " |" for line in cells]
        return "\n".join([lines[0], "|" + "---|" * len(cells[0]), *lines[1:]])
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    return "\n".join("  ".join([*map(str.rjust, line, widths), line[4]]) for line in cells)


def legend(datasets: Datasets) -> Iterator[str]:
    """Yield a line with the files that differ, for each data set with runs of different code."""
    for dataset, sets in datasets.items():
        members = [run for runs in sets.values() for run in runs]
        differing = ranking.differing_inputs(members)
        if changed := sorted(Path(key).name for key in differing if ranking.is_code(key)):
            some = ", ".join(changed[:FILES])
            more = f" and {len(changed) - FILES} more files" if len(changed) > FILES else ""
            yield f"code of the runs on {dataset} differs in {some}{more}"


def compare(pair: Groups, over: Sequence[str], metric: str) -> Iterator[str]:
    """Compare two groups over the seeds, and for each seed on the same test images."""
    (first, a), (second, b) = pair.items()
    difference = statistics.welch(*([run.metrics[metric] for run in runs] for runs in (a, b)))
    mean, low, high = (number(value, metric, "+") for value in difference[:3])
    unit = " points" if "accuracy" in metric else ""
    text = f"95 % interval {low} to {high}, p = {difference.p:.2g} (Welch)"
    if np.isnan(difference.p):
        single = 1 in (len(a), len(b))
        text = f"no interval{' from one run' if single else ': no spread between runs'}"
    yield f"{second} minus {first}: {mean}{unit}, {text}"
    if metric != ranking.TEST:  # only predictions of the test images are kept
        return
    for x in a:
        for y in b:
            if groups.label(x, over) == groups.label(y, over) or len(a) == len(b) == 1:
                yield compare_images(x, y)


def compare_images(x: Result, y: Result) -> str:
    """Say how often only one of two runs is right, and whether that may be chance."""
    only_x, only_y = statistics.discordant(groups.predictions(x), groups.predictions(y))
    p = statistics.mcnemar(only_x, only_y)
    counts = f"{x.name} alone is right on {only_x}, {y.name} alone on {only_y}"
    return f"on the same test images, {counts}: p = {p:.2g} (McNemar, exact)"


def draw(path: str, frame: pd.DataFrame, datasets: Datasets, metric: str) -> None:
    """Draw each run as a ring over the mean and interval of its group; a panel per data set."""
    counts = [len(sets) for sets in datasets.values()]
    figure, axes = charts.plt.subplots(
        len(counts),
        1,
        figsize=(8, 1.4 + 0.4 * sum(counts) + 0.6 * (len(counts) - 1)),
        height_ratios=counts,
        squeeze=False,
    )
    for axis, (dataset, sets) in zip(axes.flat, datasets.items(), strict=True):
        rows = frame[frame["dataset"] == dataset]
        draw_groups(axis, rows, sets, metric)
        axis.set_title(dataset)
    handles: dict[str, Any] = {}
    for axis in axes.flat:
        lines, labels = axis.get_legend_handles_labels()
        handles |= dict(zip(labels, lines, strict=True))
    figure.legend(
        list(handles.values()),
        list(handles),
        frameon=False,
        loc="outside upper right",
        ncols=3,
    )
    with files.atomic(path) as handle:
        charts.save(figure, handle, dpi=120)


def draw_groups(axis: Axes, rows: pd.DataFrame, sets: Groups, metric: str) -> None:
    """Draw one line of the panel for each group, from top to bottom."""
    scale, unit = (100, ", %") if "accuracy" in metric else (1, "")
    labels = []
    for height, row in enumerate(rows.to_dict("records")):
        if not np.isnan(row["low"]):
            ends = [scale * row["low"], scale * row["high"]]
            axis.plot(ends, [height] * 2, c=charts.BLUE, label="95 % interval", **BAR)
            axis.plot(scale * row["mean"], height, "|", c=charts.BLUE, label="mean", **MEAN)
        values = [scale * run.metrics[metric] for run in sets[row["group"]]]
        axis.plot(values, [height] * len(values), "o", c=charts.ORANGE, label="one run", **RING)
        labels.append(f"{charts.shorten(row['group'], 48)}  (n = {row['n']})")
    axis.set_yticks(range(len(rows)), labels)
    axis.set(xlabel=f"{metric}{unit}", ylim=(len(rows) - 0.5, -0.5))


if __name__ == "__main__":
    stage.run(main)
