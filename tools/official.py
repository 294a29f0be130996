"""Run the whole default pipeline on the official archive, for the results in this repository.

    python -m tools.official

It writes dvc.lock, the metrics and the tables of the plots, and prints the commands that commit
them. Run it once, where the archive can be downloaded; then every clone has the results.
"""

from cifar import stage  # isort: skip  first, to report errors of the imports below

import subprocess
from pathlib import Path
from typing import Any

from cifar import UserError, params, pipeline

# Everything that a result depends on; a lock file is of use only if these are committed as well.
INPUTS = ("params.yaml", "dvc.yaml", "cifar", "stages")


def main() -> None:
    check_inputs()
    if subprocess.run(["dvc", "repro"], check=False).returncode:
        raise UserError("failed, see above (dvc repro): fix it and run `make official` again")
    subprocess.run(["dvc", "metrics", "show"], check=False)
    print(f"\nTo commit this result:\n  git add {' '.join(results(pipeline.stages()))}")
    print('  git commit -m "Results of the default on the official archive"')


def check_inputs() -> None:
    """Check that the commit alone determines the result.

    Raises:
        UserError: a file differs from the commit, or the data are not the official archive.
    """
    command = ["git", "status", "--porcelain", "--", *INPUTS]
    status = subprocess.run(command, capture_output=True, text=True, check=False)
    if status.returncode:
        message = (status.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{message} (git status): run this in a clone of the repository")
    if status.stdout:
        name = status.stdout.splitlines()[0][3:]
        raise UserError(
            f"{name} differs from the commit (git diff HEAD): commit or undo the change first"
        )
    if params.read("params.yaml")["fetch"]["source"]:
        raise UserError(
            "the data are not from the official archive (params.yaml, fetch.source): leave it empty"
        )


def results(stages: dict[str, dict[str, Any]]) -> list[str]:
    """The paths of dvc.lock and of the outputs that Git keeps, those with `cache: false`."""
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
