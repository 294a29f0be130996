"""Runs one stage in a folder of its own with changed parameters."""

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]


def run_stage(
    folder: Path,
    name: str,
    env: dict[str, str] | None = None,
    disk: int | None = None,
    **overrides: dict[str, Any],
) -> subprocess.CompletedProcess[str]:
    """Run a stage in `folder`, with params.yaml changed by, say, fetch={"dataset": "digits"}.

    `disk` is the most bytes that a file may have; a write beyond fails, as on a full disk.
    """
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    for section, values in overrides.items():
        params[section] |= values
    yaml.dump(params, folder / "params.yaml")
    outside = ("DVC_", "COVERAGE_") if disk else ("DVC_",)  # coverage could not save its data
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(outside)}
    fixed = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "NO_PROXY": "*"}
    return subprocess.run(
        [sys.executable, "-m", f"stages.{name}"],
        cwd=folder,
        env=inherited | fixed | (env or {}),
        preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (disk, disk)))
        if disk
        else None,
        capture_output=True,
        text=True,
        timeout=600,
    )


def content(folder: Path) -> dict[str, bytes]:
    """Maps the path of every file in the folder to its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
