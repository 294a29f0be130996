"""A search for better parameters: trials that an Optuna study proposes, each of them a DVC experiment.

    python -m tools.search docs/search.example.yaml --trials 30

A trial trains and is judged on validation images; the test images stay unseen. One that after some epochs is
worse than most others were then is stopped. Stopped in any way, the same command goes on, first with the trial in
which it was stopped. Optuna comes with `make install`; elsewhere: `pip install optuna`.
"""

import argparse
import json
import os
import re
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cifar import UserError, files, params, stage, yaml12
from cifar.experiments import table as experiments

PARAMS = Path("params.yaml")
STORAGE = "sqlite:///runs/search.db"
KINDS = {"float": float, "log": float, "int": int, "choice": object}
EPOCH = re.compile(
    r"epoch (\d+)/(\d+): .*validation loss .*, accuracy ([\d.]+)%"
)  # as cifar/training/progress.py prints it


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m tools.search", description=__doc__, formatter_class=style
    )
    parser.add_argument("ranges", help="a YAML file, such as docs/search.example.yaml")
    parser.add_argument(
        "--trials",
        type=int,
        default=20,
        help="how many in all, earlier ones included (%(default)s)",
    )
    parser.add_argument(
        "--study", help="its name, and the beginning of the experiments' names (that of the file)"
    )
    parser.add_argument(
        "--storage", default=STORAGE, metavar="URL", help="where the study is kept (%(default)s)"
    )
    options = parser.parse_args()
    ranges = read_ranges(options.ranges)
    name = options.study or Path(options.ranges).stem.partition(".")[0]
    if not re.fullmatch(r"\w[\w-]*", name):
        raise UserError(
            f"{name!r} cannot begin the names of experiments (--study): take letters, digits, - and _"
        )
    study = open_study(name, options.storage)
    keep_others(study, name, ranges)
    before = PARAMS.read_bytes()
    ended = [trial_state("COMPLETE"), trial_state("PRUNED")]
    while len(study.get_trials(states=ended)) < options.trials:
        trial = study.ask()
        try:
            values = {key: suggest(trial, key, *spec) for key, spec in ranges.items()}
            accuracy = run(trial, f"{name}-{trial.number}", values)
        except UserError:  # it would fail again; only an interrupted one is put up again
            study.tell(trial, state=trial_state("FAIL"))
            raise
        finally:
            files.write_bytes(PARAMS, before)
        state = "PRUNED" if accuracy is None else "COMPLETE"
        study.tell(trial, accuracy, state=trial_state(state))
        shown = "stopped early" if accuracy is None else f"validation accuracy {accuracy:.2%}"
        print(
            f"{name}-{trial.number}: {shown}; {', '.join(f'{k}={v}' for k, v in values.items())}",
            flush=True,
        )
    if not study.get_trials(states=[trial_state("COMPLETE")]):
        raise UserError(
            f"no trial of {options.trials} came to its end ({options.ranges}): lower the learning rates"
        )
    best = f"{name}-{study.best_trial.number}"
    print(
        f"best: {best}, {study.best_value:.2%} of the validation images; next: `dvc exp apply {best} && dvc repro`"
    )


def read_ranges(path: str) -> dict[str, tuple[str, list[Any]]]:
    """{'train.lr': ('log', [0.01, 0.5]), …}, every end of a range checked as a value of params.yaml.

    Raises:
        UserError: with the first mistake.
    """
    ranges = {}
    for key, spec in yaml12.read(path).items():
        kind, values = (
            next(iter(spec.items())) if isinstance(spec, dict) and len(spec) == 1 else ("", None)
        )
        if kind not in KINDS or not isinstance(values, list):
            raise UserError(
                f"{key}: {spec} ({path}): write {{KIND: [LOW, HIGH]}}, KIND one of {', '.join(KINDS)}"
            )
        numbers = kind == "choice" or (
            len(values) == 2 and all(type(value) in (int, KINDS[kind]) for value in values)
        )
        if not numbers or not values or (kind != "choice" and not (values[0] > 0 or kind != "log")):
            raise UserError(
                f"{key}: {values} is no range of kind {kind} ({path}): two numbers, of log above 0"
            )
        if kind != "choice" and values[0] >= values[1]:
            raise UserError(
                f"{key}: {values[0]} is not below {values[1]} ({path}): write the lower one first"
            )
        section, _, name = key.partition(".")
        if section != "train":
            raise UserError(
                f"{key} ({path}): only parameters of train; others change what accuracy is measured on"
            )
        for value in values:
            whole = params.read(PARAMS)
            whole["train"][name] = value if kind == "choice" else KINDS[kind](value)
            params.check(whole, path)
        ranges[key] = (kind, values)
    if not ranges:
        raise UserError(f"no ranges ({path}): write for example `train.lr: {{log: [0.03, 0.3]}}`")
    return ranges


def open_study(name: str, storage: str) -> Any:
    """A new study, or the one of this name, with a trial that did not end put up again.

    Raises:
        UserError: Optuna is not installed, or no study can be kept there.
    """
    try:
        import optuna
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        raise UserError("no optuna (this environment): `pip install optuna`") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if storage == STORAGE:
        Path("runs").mkdir(exist_ok=True)
    try:
        study = optuna.create_study(
            storage=storage, study_name=name, direction="maximize", load_if_exists=True
        )
    except (SQLAlchemyError, ImportError, ValueError, optuna.exceptions.OptunaError) as error:
        raise UserError(
            f"{str(error).splitlines()[0]} (--storage {storage}): write for example {STORAGE}"
        ) from None
    study.sampler = optuna.samplers.TPESampler(
        seed=len(study.trials)
    )  # what is proposed next, and not first again
    study.pruner = optuna.pruners.MedianPruner(
        n_startup_trials=5, n_warmup_steps=2
    )  # not in epoch 1
    for trial in study.get_trials(states=[trial_state("RUNNING")]):
        study.tell(trial.number, state=trial_state("FAIL"))
        if trial.params:
            study.enqueue_trial(trial.params)
    return study


def keep_others(study: Any, name: str, ranges: Mapping[str, Any]) -> None:
    """Note the parameters that are not searched, or refuse to go on with others, which give other accuracies."""
    flat = experiments.flatten(params.read(PARAMS))
    here = {
        key: value
        for key, value in flat
        if key not in ranges and not key.startswith(("evaluate.", "plot."))
    }
    there = study.user_attrs.get("parameters", here)
    for key in here | there:
        if here.get(key) != there.get(key):
            raise UserError(
                f"{key} differs from the study {name} (params.yaml): put it back, or name a new --study"
            )
    study.set_user_attr("parameters", here)


def trial_state(name: str) -> Any:
    from optuna.trial import TrialState

    return TrialState[name]


def suggest(trial: Any, key: str, kind: str, values: list[Any]) -> Any:
    try:
        if kind == "choice":
            return trial.suggest_categorical(key, values)
        if kind == "int":
            return trial.suggest_int(key, *values)
        return trial.suggest_float(key, *values, log=kind == "log")
    except ValueError as error:  # the study has it of another kind, or with other choices
        raise UserError(f"{error} ({key}): take another --study for other ranges") from None


def run(trial: Any, name: str, values: dict[str, Any]) -> float | None:
    """Train as the experiment `name`; the validation accuracy, or nothing of a trial that was stopped or diverged.

    Raises:
        UserError: it failed.
    """
    # The members of an ensemble count their epochs one after the other, and none of them is what is judged.
    alone = values.get("train.ensemble", params.read(PARAMS)["train"]["ensemble"]) == 1
    sets = [f"--set-param={key}={json.dumps(value)}" for key, value in values.items()]
    command = ["dvc", "exp", "run", "--name", name, *sets, "train"]
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a background job of a shell ignores it
    # In a process group of its own, whose Ctrl-C we pass on: to a trial that is stopped, and when we are.
    settings: dict[str, Any] = {
        "stderr": subprocess.STDOUT,
        "text": True,
        "start_new_session": True,
    }
    lines, stopped = [], False
    with subprocess.Popen(command, stdout=subprocess.PIPE, **settings) as process:
        try:
            for line in process.stdout or []:
                lines.append(line.strip())
                if found := EPOCH.match(line):
                    print(f"{name}: {line}", end="", flush=True)
                if found and alone:
                    trial.report(float(found[3]) / 100, int(found[1]))
                    if not stopped and found[1] != found[2] and trial.should_prune():
                        stopped = True
                        os.killpg(process.pid, signal.SIGINT)
        except BaseException:
            os.killpg(process.pid, signal.SIGINT)
            process.wait()  # it still tidies up
            raise
    errors = [line for line in lines if line.lower().startswith("error: ")]
    if stopped or any("loss is not finite" in line for line in errors):
        return None
    if process.returncode:
        message = errors[0].partition(": ")[2] if errors else (lines or ["no message"])[-1]
        raise UserError(f"{message} (experiment {name})")
    return float(files.read_json("metrics/train.json")["val"]["accuracy"])


if __name__ == "__main__":
    stage.run(main)
