"""Reproduce a recorded result, and report whether it is the same.

    python -m tools.verify                    the last commit
    python -m tools.verify NAME               another commit, or an experiment
    python -m tools.verify --from-scratch     fetch the raw data as well

It works in a temporary clone of the commit, with the installed packages. From DVC's cache or remote
it takes the raw data and inputs that `dvc add` tracks, and no results. If it is interrupted, run
the same command again: it resumes. The exit code is 0 if the result meets L1, or L3 if L1 does not
apply (docs/verify.md); otherwise it is 1.
"""

from cifar import stage  # isort: skip  first, to report errors of the imports below

import argparse
import json
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cifar import UserError, files
from cifar.experiments import consistency, contract, differences, recorded
from cifar.experiments.contract import Accuracy, Change, Verdict
from cifar.experiments.rerun import RAW, Rerun

WEIGHTS = "models/model.safetensors"
METRICS = "metrics/test.json"
COLUMNS = 100
IDENTICAL, DIFFERS, GIVEN = "identical", "differs", "from DVC, not made"


@dataclass(frozen=True)
class Output:
    """An output of the rerun: its stage, whether it is identical, and if not, what differs."""

    path: str
    stage: str
    state: str
    difference: str = ""


@dataclass(frozen=True)
class Report:
    """The result of a verification."""

    name: str
    commit: str
    from_scratch: bool
    outputs: Sequence[Output]
    environment: Sequence[Change]
    accuracy: Accuracy | None
    verdict: Verdict


def main() -> None:
    options = parse()
    result = recorded.read(options.name)
    consistency.check(result)
    pins = contract.pin_changes(result)
    for change in pins:
        note = f"requirements.lock of the commit has {change.recorded}"
        print(f"note: {change.name} {change.here} is installed, {note}", file=sys.stderr)
    rerun = Rerun(result, options.from_scratch)
    with rerun.exclusive():
        rerun.prepare()
        rerun.run()
        report = compare(rerun, pins)
        rerun.finish(options.keep)
    if options.json:
        print(json.dumps(asdict(report), indent=2))
    elif options.badge:
        print(badge(report))
    else:
        print(text(report))
    if options.keep:
        print(f"The clone is kept: {rerun.clone}", file=sys.stderr)
    if not report.verdict.level:
        sys.exit(1)


def parse() -> argparse.Namespace:
    parser = stage.parser(__doc__)
    parser.add_argument(
        "name",
        nargs="?",
        default="HEAD",
        metavar="NAME",
        help="commit or experiment (default: HEAD)",
    )
    parser.add_argument("--from-scratch", action="store_true", help="fetch the raw data as well")
    parser.add_argument("--keep", action="store_true", help="do not delete the clone at the end")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print all details as JSON")
    form.add_argument("--badge", action="store_true", help="print one line of Markdown")
    return parser.parse_args()


def compare(rerun: Rerun, pins: Sequence[Change]) -> Report:
    """Compare every output of the finished rerun with the recorded one."""
    result = rerun.recorded
    outputs = [
        compare_output(rerun, name, out["path"], out["md5"])
        for name in result.order
        for out in result.stages[name].get("outs", [])
    ]
    differing = [output.path for output in outputs if output.state == DIFFERS]
    before = recorded_model(rerun, differing)
    after = differences.record(rerun.clone / WEIGHTS)
    changes = contract.environment_changes(before, after, pins)
    numbers = accuracy(rerun, differing) if differing and changes else None
    return Report(
        name=result.title,
        commit=result.commit,
        from_scratch=rerun.from_scratch,
        outputs=outputs,
        environment=changes,
        accuracy=numbers,
        verdict=contract.judge(differing, changes, bool(before), numbers),
    )


def compare_output(rerun: Rerun, stage_name: str, path: str, md5: str) -> Output:
    if path == RAW and not rerun.from_scratch:
        return Output(path, stage_name, GIVEN)
    if recorded.md5(rerun.clone / path) == md5:
        return Output(path, stage_name, IDENTICAL)
    try:
        copy = recorded_copy(rerun, path, [path])
        difference = differences.describe(copy, rerun.clone / path)
    except UserError as error:
        difference = f"the difference cannot be shown: {error}"
    return Output(path, stage_name, DIFFERS, difference)


def recorded_copy(rerun: Rerun, path: str, differing: Sequence[str]) -> Path:
    """The path of the recorded version of an output: in the clone if identical, else beside it."""
    if path not in differing:
        return rerun.clone / path
    target = rerun.folder / "recorded" / path
    if not target.exists():
        rerun.recorded.copy(path, target)
    return target


def recorded_model(rerun: Rerun, differing: Sequence[str]) -> dict[str, Any]:
    """The record in the recorded model; empty if the model is not available."""
    try:
        return differences.record(recorded_copy(rerun, WEIGHTS, differing))
    except UserError:
        return {}


def accuracy(rerun: Rerun, differing: Sequence[str]) -> Accuracy | None:
    """The test accuracies; None if one is missing."""
    try:
        copy = recorded_copy(rerun, METRICS, differing)
        before, after = files.read_json(copy), files.read_json(rerun.clone / METRICS)
        return contract.accuracy(rerun.recorded, before, after)
    except (UserError, OSError, LookupError, TypeError):
        return None


def text(report: Report) -> str:
    """The report for a terminal of 100 columns."""
    widths = [max(len(getattr(o, key)) for o in report.outputs) for key in ("stage", "path")]
    lines = [f"{report.name}, made again", ""]
    for output in report.outputs:
        row = f"{output.stage:<{widths[0]}}  {output.path:<{widths[1]}}  {output.state}"
        lines += [row, *wrap(output.difference, " " * (widths[0] + 4))]
    if report.environment:
        table = [("environment", "recorded", "here")]
        table += [(change.name, change.recorded, change.here) for change in report.environment]
        wide = [max(len(row[column]) for row in table) for column in (0, 1)]
        lines += ["", *(f"{a:<{wide[0]}}  {b:<{wide[1]}}  {c}" for a, b, c in table)]
    lines += ["", *wrap(report.verdict.text, "")]
    return "\n".join(map(printable, lines))


def wrap(paragraph: str, indent: str) -> list[str]:
    return textwrap.wrap(
        paragraph,
        COLUMNS,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
    )


def printable(line: str) -> str:
    """The line without control characters: a stranger's result must not control the terminal."""
    return "".join(character if character.isprintable() else "?" for character in line)


def badge(report: Report) -> str:
    """One line of Markdown for a pull request."""
    made = [output for output in report.outputs if output.state != GIVEN]
    identical = sum(output.state == IDENTICAL for output in made)
    mark = "✅" if report.verdict.level else "❌"
    count = f"{identical} of {len(made)} outputs identical"
    return printable(f"{mark} `{report.name}` made again: {count}. {report.verdict.text}")


if __name__ == "__main__":
    stage.run(main)
