"""Which difference is real: experiments that differ only by their seed, summed up as one group.

    python -m tools.compare                            every group: mean, deviation, 95 % interval
    python -m tools.compare train.dropout=0.1 HEAD     two groups or experiments: may the difference be chance?
    python -m tools.compare --metric val.accuracy --over preprocess.fold --plot folds.png

A group is called by the parameters that set it apart; a part of them will do where it fits one group only.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from cifar import UserError, files, params, stage
from cifar.experiments import statistics
from cifar.experiments import table as experiments
from cifar.experiments.statistics import Summary
from cifar.experiments.table import Result

Groups = Mapping[str, Sequence[Result]]


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m tools.compare", description=__doc__, formatter_class=style
    )
    parser.add_argument(
        "pair",
        nargs="*",
        metavar="GROUP",
        help="two groups or experiments, to test their difference",
    )
    parser.add_argument(
        "--metric", default="test.accuracy", help="as `dvc metrics show` names it (%(default)s)"
    )
    parser.add_argument(
        "--over", action="append", metavar="KEY", help="what may differ within a group (seed)"
    )
    parser.add_argument(
        "-A", "--all-commits", action="store_true", help="experiments of earlier commits, too"
    )
    parser.add_argument("--markdown", action="store_true", help="the table in Markdown")
    parser.add_argument("--csv", metavar="FILE", help="write the table, unrounded")
    parser.add_argument(
        "--plot", metavar="FILE.png", help="draw every run, and mean and interval of each group"
    )
    options = parser.parse_args()
    if len(options.pair) not in (0, 2):
        raise UserError(
            "one group named (command line): name two to compare them, or none for the table"
        )
    over = options.over or ["seed"]
    results, remarks = experiments.finished(options.metric, options.all_commits)
    known = dict.fromkeys(key for result in results for key in result.facts)
    for key in over:
        if key not in known:
            raise UserError(
                f"no parameter {key}{params.did_you_mean(key, known)} (--over): name another"
            )
    groups: dict[str, list[Result]] = {}
    for name, members in experiments.group(results, over).items():
        groups[name], again = experiments.one_each(members, over)
        remarks += [f"not counted, the same run again: {result.name}" for result in again]
    if len(set(options.pair)) == 1:
        raise UserError(f"{options.pair[0]} twice (command line): name two different groups")
    chosen = {word: find(word, groups, results) for word in options.pair} or groups
    if options.pair:
        refuse_overlap(chosen)
        remarks = [*tests(chosen, over, options.metric), *remarks]
    rows = table(chosen, options.metric)
    print(
        f"{options.metric} over {' and '.join(over)}\n\n{layout(rows, options.metric, options.markdown)}"
    )
    if remarks:
        print("\n" + "\n".join(remarks))
    if options.csv:
        cells = [
            [name, *("" if np.isnan(value) else value for value in summary)]
            for name, summary in rows
        ]
        files.write_csv(options.csv, ["group", *Summary._fields], cells)
    if options.plot:
        draw(options.plot, rows, chosen, options.metric)


def find(word: str, groups: Groups, results: Sequence[Result]) -> Sequence[Result]:
    """The group of this name, the one that has these parameters, or the run of this name alone."""
    if alone := [result for result in results if result.name == word]:
        return alone[:1]
    parts = {experiments.plain(part) for part in word.split(",")}
    fitting = [name for name in groups if name == word] or [
        n for n in groups if parts <= set(n.split(","))
    ]
    if len(fitting) != 1:
        several = (
            f"{len(fitting)} groups have {word}" if fitting else f"no group or experiment {word}"
        )
        close = (
            ""
            if fitting
            else params.did_you_mean(word, [*groups, *(result.name for result in results)])
        )
        raise UserError(f"{several}{close} (command line): `python -m tools.compare` lists them")
    return groups[fitting[0]]


def refuse_overlap(pair: Groups) -> None:
    """Raises UserError where a run is on both sides, under two names perhaps: the workspace as an experiment too."""
    (first, a), (second, b) = pair.items()
    for x in a:
        if y := next((y for y in b if x.facts == y.facts), None):
            both = x.name if x.name == y.name else f"{x.name} as {y.name}"
            raise UserError(
                f"{first} and {second} share a run, {both} (command line): name two different groups"
            )


def table(groups: Groups, metric: str) -> list[tuple[str, Summary]]:
    """One row for each group, the best first."""
    rows = [
        (name, statistics.summarize([result.metrics[metric] for result in runs]))
        for name, runs in groups.items()
    ]
    return sorted(rows, key=lambda row: row[1].mean, reverse="loss" not in metric)


def shown(value: float, metric: str, sign: str = "") -> str:
    """Accuracies in per cent, their differences in points; anything else as it is."""
    if "accuracy" not in metric:
        return f"{value:{sign}.4f}"
    return f"{100 * value:{sign}.2f}{'' if sign else ' %'}"


def layout(rows: Sequence[tuple[str, Summary]], metric: str, markdown: bool) -> str:
    cells = [("mean", "deviation", "95 % interval", "n", "group")]
    for name, row in rows:
        mean, deviation, low, high = (shown(value, metric) for value in row[1:])
        none = "one run: none" if row.n == 1 else "no spread: none"
        spread = (
            "-" if row.n == 1 else deviation,
            none if np.isnan(row.low) else f"{low} to {high}",
        )
        cells.append((mean, *spread, str(row.n), name))
    if markdown:
        lines = ["| " + " | ".join(line) + " |" for line in cells]
        return "\n".join([lines[0], "|" + "---|" * len(cells[0]), *lines[1:]])
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    return "\n".join("  ".join([*map(str.rjust, line, widths), line[4]]) for line in cells)


def tests(pair: Groups, over: Sequence[str], metric: str) -> Iterator[str]:
    """What tells the second group from the first: over the seeds, and of each seed on the same test images."""
    (first, a), (second, b) = pair.items()
    difference = statistics.welch(*([run.metrics[metric] for run in runs] for runs in (a, b)))
    mean, low, high = (shown(value, metric, "+") for value in difference[:3])
    unit = " points" if "accuracy" in metric else ""
    told = f"95 % interval {low} to {high}, p = {difference.p:.2g} (Welch)"
    if np.isnan(difference.p):
        told = (
            "no interval from one run"
            if 1 in (len(a), len(b))
            else "no spread between runs: no interval"
        )
    yield f"{second} minus {first}: {mean}{unit}, {told}"
    if metric != "test.accuracy":  # the predictions that are kept are those of the test images
        return
    pairs = [
        (x, y)
        for x in a
        for y in b
        if experiments.label(x, over) == experiments.label(y, over) or len(a) == len(b) == 1
    ]
    for x, y in pairs:
        only = statistics.discordant(experiments.predictions(x), experiments.predictions(y))
        yield (
            f"on the same test images, {x.name} alone is right on {only[0]}, {y.name} alone on {only[1]}: "
            f"p = {statistics.mcnemar(*only):.2g} (McNemar, exact)"
        )


def draw(path: str, rows: Sequence[tuple[str, Summary]], groups: Groups, metric: str) -> None:
    from cifar.evaluation import charts

    figure, axis = charts.plt.subplots(figsize=(8, 1.4 + 0.4 * len(rows)))
    scale, unit = (100, ", %") if "accuracy" in metric else (1, "")
    for place, (name, row) in enumerate(rows):
        values = [scale * result.metrics[metric] for result in groups[name]]
        if not np.isnan(row.low):
            ends = [scale * row.low, scale * row.high]
            axis.plot(
                ends,
                [place] * 2,
                lw=6,
                alpha=0.4,
                c=charts.TRAIN,
                solid_capstyle="butt",
                label="95 % interval",
            )
            axis.plot(scale * row.mean, place, "|", ms=18, mew=2, color=charts.TRAIN, label="mean")
        axis.plot(values, [place] * row.n, "o", ms=5, mfc="none", color=charts.VAL, label="one run")
    axis.set_yticks(
        range(len(rows)), [f"{charts.shorten(name, 48)}  (n = {row.n})" for name, row in rows]
    )
    axis.set(xlabel=f"{metric}{unit}", ylim=(len(rows) - 0.5, -0.5))
    handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(
        handles.values(), handles.keys(), frameon=False, loc="outside upper right", ncols=3
    )
    with files.atomic(path) as handle:
        charts.save(figure, handle, dpi=120)


if __name__ == "__main__":
    stage.run(main)
