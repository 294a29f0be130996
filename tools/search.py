"""A search for better parameters: trials proposed by an Optuna study, each a DVC experiment.

    python -m tools.search docs/search.example.yaml --trials 30

A trial trains in a copy of the repository and is judged on validation images; the test images stay
unseen. A trial that is worse than most others were after as many epochs is stopped early. If the
search is interrupted, run the same command again: it resumes the interrupted trial first. Optuna
comes with `make install`; elsewhere: `pip install optuna`.
"""

import argparse
import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cifar import UserError, params, stage, yaml12
from cifar.experiments import progress, table

PARAMS = Path("params.yaml")
STORAGE = "sqlite:///runs/search.db"
KINDS = {"float": float, "log": float, "int": int, "choice": object}
LOOK = 0.2  # seconds between two looks at a running trial
EPOCH = (
    "{name}: epoch {epoch}/{epochs}: train loss {train_loss:.3f}, accuracy {train_accuracy:.2%}; "
    "validation loss {val_loss:.3f}, accuracy {val_accuracy:.2%}"
)


def main() -> None:
    options = parse()
    ranges = read_ranges(options.ranges)
    name = options.study or Path(options.ranges).stem.partition(".")[0]
    if not re.fullmatch(r"\w[\w-]*", name):
        raise UserError(f"invalid study name {name!r} (--study): use letters, digits, - and _")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    with exclusive(name) as lock:
        study = open_study(name, options.storage)
        keep_others(study, name, ranges)
        ended = [trial_state("COMPLETE"), trial_state("PRUNED")]
        while len(study.get_trials(states=ended)) < options.trials:
            run_trial(study, name, ranges, lock)
    if not study.get_trials(states=[trial_state("COMPLETE")]):
        problem = f"no trial of {options.trials} ran to its end ({options.ranges})"
        raise UserError(f"{problem}: lower the learning rates")
    best = f"{name}-{study.best_trial.number}"
    print(
        f"best: {best}, validation accuracy {study.best_value:.2%}; "
        f"next: `dvc exp apply {best} && dvc repro`"
    )


def parse() -> argparse.Namespace:
    parser = stage.parser(__doc__)
    add = parser.add_argument
    add("ranges", help="a YAML file, such as docs/search.example.yaml")
    add("--trials", type=int, default=20, help="number of trials, earlier ones included (20)")
    add("--study", help="its name, with which its experiments begin (the name of the file)")
    add("--storage", default=STORAGE, metavar="URL", help="database of the study (%(default)s)")
    return parser.parse_args()


def read_ranges(path: str) -> dict[str, tuple[str, list[Any]]]:
    """{'train.lr': ('log', [0.01, 0.5]), ...}, both ends checked as values of params.yaml.

    Raises:
        UserError: with the first mistake.
    """
    ranges = {key: read_range(key, spec, path) for key, spec in yaml12.read(path).items()}
    if not ranges:
        raise UserError(f"no ranges ({path}): write for example `train.lr: {{log: [0.03, 0.3]}}`")
    for key, (kind, values) in ranges.items():
        section, _, name = key.partition(".")
        if section != "train":
            raise UserError(f"{key} is no parameter of train ({path}): search those of train only")
        for value in values:
            whole = params.read(PARAMS)
            whole["train"][name] = value if kind == "choice" else KINDS[kind](value)
            params.check(whole, path)
    return ranges


def read_range(key: str, spec: Any, path: str) -> tuple[str, list[Any]]:
    """The kind and the values of {KIND: [LOW, HIGH]}, or of {choice: [A, B, ...]}."""
    kind, values = "", None
    if isinstance(spec, dict) and len(spec) == 1:
        ((kind, values),) = spec.items()
    if kind not in KINDS or not isinstance(values, list):
        kinds = ", ".join(KINDS)
        raise UserError(f"{key}: {spec} ({path}): write {{KIND: [LOW, HIGH]}}, KIND one of {kinds}")
    if kind == "choice":
        if not values:
            raise UserError(f"{key}: no values ({path}): write {{choice: [A, B]}}")
        return kind, values
    if len(values) != 2 or any(type(value) not in (int, KINDS[kind]) for value in values):
        raise UserError(f"{key}: {values} is no range of kind {kind} ({path}): write two numbers")
    low, high = values
    if low >= high:
        raise UserError(f"{key}: {low} is not below {high} ({path}): write the lower one first")
    if kind == "log" and low <= 0:
        raise UserError(f"{key}: {low} has no logarithm ({path}): write numbers above 0")
    return kind, values


@contextlib.contextmanager
def exclusive(name: str) -> Iterator[int]:
    """A lock on the study, as a file descriptor.

    Trials inherit it, so it outlives a search that was killed; the file names the trial's process.

    Raises:
        UserError: another search, or a trial of a killed one, holds it.
    """
    path = Path("runs", f"{name}.lock")
    path.parent.mkdir(exist_ok=True)
    with path.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            message = (
                f"a search, or a trial of a killed one, still runs in the study {name} ({path})"
            )
            stop = f"`kill -INT -- -{handle.read().strip()}` ends the trial"
            raise UserError(f"{message}: wait until it ends; {stop}") from None
        yield handle.fileno()


def open_study(name: str, storage: str) -> Any:
    """A new study, or the one of this name, in which an interrupted trial comes next.

    Raises:
        UserError: Optuna is not installed, or no study can be kept there.
    """
    try:
        import optuna
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        raise UserError("no optuna (this environment): `pip install optuna`") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(
            storage=storage, study_name=name, direction="maximize", load_if_exists=True
        )
    except (SQLAlchemyError, ImportError, ValueError, optuna.exceptions.OptunaError) as error:
        problem = str(error).splitlines()[0]
        raise UserError(f"{problem} (--storage {storage}): write for example {STORAGE}") from None
    # Seeded by the number of trials: a study that is resumed proposes other values than at first.
    study.sampler = optuna.samplers.TPESampler(seed=len(study.trials))
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2)
    for trial in study.get_trials(states=[trial_state("RUNNING")]):
        resume(study, trial, f"{name}-{trial.number}")
    return study


def resume(study: Any, trial: Any, experiment: str) -> None:
    """Repeat a trial whose search was interrupted, or take its result if it ended after all."""
    try:
        study.tell(trial.number, accuracy_of(experiment))
    except UserError:
        study.tell(trial.number, state=trial_state("FAIL"))
        if trial.params:
            study.enqueue_trial(trial.params)


def keep_others(study: Any, name: str, ranges: Mapping[str, Any]) -> None:
    """Note the parameters that are not searched.

    Raises:
        UserError: they differ from those of the study, so that accuracies do not compare.
    """
    pairs = table.flatten(params.read(PARAMS))
    unrelated = ("evaluate.", "plot.")
    here = {k: v for k, v in pairs if k not in ranges and not k.startswith(unrelated)}
    there = study.user_attrs.get("parameters", here)
    for key in here | there:
        if here.get(key) != there.get(key):
            problem = f"{key} differs from the study {name} (params.yaml)"
            raise UserError(f"{problem}: restore its value, or name a new --study")
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
    except ValueError as error:  # the study has another kind of it, or other choices
        raise UserError(f"{error} ({key}): name another --study for other ranges") from None


def run_trial(study: Any, name: str, ranges: Mapping[str, Any], lock: int) -> None:
    """Ask the study for values, train with them, and tell it the outcome.

    Raises:
        UserError: it failed. It would fail again, so only an interrupted trial is repeated.
    """
    trial = study.ask()
    experiment = f"{name}-{trial.number}"
    try:
        values = {key: suggest(trial, key, *spec) for key, spec in ranges.items()}
        accuracy = train(trial, experiment, values, lock)
    except UserError:
        study.tell(trial, state=trial_state("FAIL"))
        raise
    state = "PRUNED" if accuracy is None else "COMPLETE"
    study.tell(trial, accuracy, state=trial_state(state))
    outcome = "stopped early" if accuracy is None else f"validation accuracy {accuracy:.2%}"
    shown = ", ".join(f"{key}={value}" for key, value in values.items())
    print(f"{experiment}: {outcome}; {shown}", flush=True)


def train(trial: Any, name: str, values: dict[str, Any], lock: int) -> float | None:
    """Train as the experiment `name`, in a copy of the repository: the workspace stays as it is.

    Returns the validation accuracy, or None if the trial was stopped or diverged.

    Raises:
        UserError: it failed.
    """
    # The members of an ensemble count their epochs one after the other, and are judged together.
    alone = values.get("train.ensemble", params.read(PARAMS)["train"]["ensemble"]) == 1
    sets = [f"--set-param={key}={json.dumps(value)}" for key, value in values.items()]
    command = ["dvc", "exp", "run", "--temp", "--name", name, *sets, "train"]
    progress.path_of(name).unlink(missing_ok=True)  # of an earlier study of this name
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        # In a session of its own, so that Ctrl-C reaches it through us alone.
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[lock],
        )
        os.ftruncate(lock, 0)
        os.write(lock, f"{process.pid}\n".encode())
        stopped = watch(process, trial if alone else None, name)
        output.seek(0)
        lines = [line.strip() for line in output if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error: ")]
    if stopped or any("loss is not finite" in line for line in errors):
        return None
    if process.returncode:
        raise UserError(f"{problem(errors, lines)} (experiment {name})")
    return accuracy_of(name)


def watch(process: subprocess.Popen, trial: Any, name: str) -> bool:
    """Report the epochs of a training to the trial, if any; whether the trial had it stopped."""
    epochs = progress.Epochs(progress.path_of(name))
    stopped = False
    try:
        running = True
        while running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LOOK)
            running = process.returncode is None  # after its end there may still be rows to read
            for row in epochs.new():
                print(EPOCH.format(name=name, **row), flush=True)
                if trial and not stopped and hopeless(trial, row):
                    stopped = True
                    interrupt(process)
    except BaseException:
        interrupt(process)
        process.wait()  # it still tidies up
        raise
    return stopped


def hopeless(trial: Any, row: dict[str, Any]) -> bool:
    """Report an epoch; whether to stop after it. After the last one there is nothing to save."""
    trial.report(row["val_accuracy"], row["epoch"])
    return row["epoch"] < row["epochs"] and trial.should_prune()


def interrupt(process: subprocess.Popen) -> None:
    """Ctrl-C for dvc and its training, if they still run."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)


def problem(errors: Sequence[str], lines: Sequence[str]) -> str:
    """The error in what dvc printed, without its label; else the last line."""
    return errors[0].partition(": ")[2] if errors else (lines or ["no message"])[-1]


def accuracy_of(name: str) -> float:
    """The validation accuracy of an experiment of this commit."""
    head = table.run("git", "rev-parse", "HEAD").strip()
    reference = f"refs/exps/{head[:2]}/{head[2:]}/{name}"
    metrics = json.loads(table.run("git", "show", f"{reference}:./metrics/train.json"))
    return float(metrics["val"]["accuracy"])


if __name__ == "__main__":
    stage.run(main)
