"""Run the default in full on the official archive, for the results that the repository shows.

    python -m tools.official

It leaves dvc.lock, the metrics and the plots' tables, and prints the command that adds them to Git.
The first person who can reach the archive runs it once; every clone has the results from then on.
"""

from cifar import stage  # isort: skip  first, to report errors of the imports below

import subprocess
from pathlib import Path
from typing import Any

from cifar import UserError, params

# What decides on a result; a lock file is only worth committing with it.
INPUTS = ("params.yaml", "dvc.yaml", "cifar", "stages")


def main() -> None:
    check_inputs()
    if subprocess.run(["dvc", "repro"], check=False).returncode:
        raise UserError("no result (dvc repro): see above, then run `make official` again")
    subprocess.run(["dvc", "metrics", "show"], check=False)
    print(f"\nTo commit this result:\n  git add {' '.join(results(stage.pipeline()))}")
    print('  git commit -m "Results of the default on the official archive"')


def check_inputs() -> None:
    """Refuse a result that the commit would not give again.

    Raises:
        UserError: a file differs from the commit, or the data are from elsewhere.
    """
    command = ["git", "status", "--porcelain", "--", *INPUTS]
    status = subprocess.run(command, capture_output=True, text=True, check=False)
    if status.returncode:
        message = (status.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{message} (git status): run this in a clone of the repository")
    if status.stdout:
        name = status.stdout.splitlines()[0][3:]
        raise UserError(
            f"{name} differs from the commit (git diff HEAD): commit it or take it back first"
        )
    if params.read("params.yaml")["fetch"]["source"]:
        raise UserError(
            "the data are not from the official archive (params.yaml, fetch.source): leave it empty"
        )


def results(stages: dict[str, dict[str, Any]]) -> list[str]:
    """dvc.lock and the outputs that Git keeps, those with `cache: false`."""
    entries = [
        entry
        for declared in stages.values()
        for kind in ("metrics", "plots")
        for entry in declared.get(kind, [])
        if isinstance(entry, dict)
    ]
    kept = [path for entry in entries for path, how in entry.items() if not how.get("cache", True)]
    return ["dvc.lock", *(path for path in kept if Path(path).exists())]


if __name__ == "__main__":
    stage.run(main, __doc__)
