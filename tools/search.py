"""Search for better parameters: an Optuna study proposes trials, each a DVC experiment.

    python -m tools.search docs/search.example.yaml --trials 30

A trial trains in a copy of the repository and is judged on validation images; the test images stay
unseen. A trial that is worse than the median of the others after the same epoch is stopped early.
If the search is interrupted, run the same command again: it first resumes the interrupted trial.
It needs Optuna: `pip install optuna`.
"""

from cifar import stage  # isort: skip  first, to report errors of the imports below

import argparse
import contextlib
import fcntl
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cifar import UserError, params
from cifar.experiments import ranges, table, trials
from cifar.experiments.ranges import Ranges

STORAGE = "sqlite:///runs/search.db"


def main() -> None:
    options = parse()
    searched = ranges.read(options.ranges)
    name = options.study or Path(options.ranges).stem.partition(".")[0]
    if not re.fullmatch(r"\w[\w-]*", name):
        raise UserError(f"invalid study name {name!r} (--study): use letters, digits, - and _")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs would ignore Ctrl-C
    with exclusive(name) as lock:
        study = open_study(name, options.storage)
        keep_others(study, name, searched)
        ended = [trial_state("COMPLETE"), trial_state("PRUNED")]
        while len(study.get_trials(states=ended)) < options.trials:
            run_trial(study, name, searched, lock)
    if not study.get_trials(states=[trial_state("COMPLETE")]):
        problem = f"none of {options.trials} trials ran to its end ({options.ranges})"
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
    add("--trials", type=int, default=20, help="how many, including earlier ones (default: 20)")
    add(
        "--study", help="name of the study and prefix of its experiments (default: the file's name)"
    )
    add("--storage", default=STORAGE, metavar="URL", help="database (default: %(default)s)")
    return parser.parse_args()


@contextlib.contextmanager
def exclusive(name: str) -> Iterator[int]:
    """Hold a lock on the study; yields its file descriptor.

    Trials inherit it, so it outlives a killed search; the file holds the trial's process id.

    Raises:
        UserError: another search, or a trial of a killed one, holds the lock.
    """
    path = Path("runs", f"{name}.lock")
    path.parent.mkdir(exist_ok=True)
    with path.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            message = (
                f"a search or a trial of a killed search is still running in study {name} ({path})"
            )
            stop = f"`kill -INT -- -{handle.read().strip()}` ends the trial"
            raise UserError(f"{message}: wait until it ends; {stop}") from None
        yield handle.fileno()


def open_study(name: str, storage: str) -> Any:
    """Create a study, or load the one of this name and queue its interrupted trial.

    Raises:
        UserError: Optuna is not installed, or the storage cannot hold a study.
    """
    try:
        import optuna
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        problem = "optuna is not installed (this environment)"
        raise UserError(f"{problem}: run `pip install optuna`") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(
            storage=storage, study_name=name, direction="maximize", load_if_exists=True
        )
    except (SQLAlchemyError, ImportError, ValueError, optuna.exceptions.OptunaError) as error:
        problem = str(error).splitlines()[0]
        raise UserError(f"{problem} (--storage {storage}): write for example {STORAGE}") from None
    # Seeded by the number of trials, so that a resumed study does not repeat earlier proposals.
    study.sampler = optuna.samplers.TPESampler(seed=len(study.trials))
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2)
    for trial in study.get_trials(states=[trial_state("RUNNING")]):
        resume(study, trial, f"{name}-{trial.number}")
    return study


def resume(study: Any, trial: Any, experiment: str) -> None:
    """Queue a trial whose search was interrupted, or record its result if it has finished."""
    try:
        study.tell(trial.number, trials.accuracy_of(experiment))
    except UserError:
        study.tell(trial.number, state=trial_state("FAIL"))
        if trial.params:
            study.enqueue_trial(trial.params)


def keep_others(study: Any, name: str, searched: Ranges) -> None:
    """Record the parameters that are not searched.

    Raises:
        UserError: they differ from those of the study, so accuracies would not be comparable.
    """
    pairs = table.flatten(params.read())
    unrelated = ("evaluate.", "plot.")
    fixed = {k: v for k, v in pairs if k not in searched and not k.startswith(unrelated)}
    earlier = study.user_attrs.get("parameters", fixed)
    for key in fixed | earlier:
        if fixed.get(key) != earlier.get(key):
            problem = f"{key} differs from the study {name} (params.yaml)"
            raise UserError(f"{problem}: restore its value, or choose a new --study")
    study.set_user_attr("parameters", fixed)


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
    except ValueError as error:  # the study has another kind of range, or other choices
        raise UserError(f"{error} ({key}): choose another --study for other ranges") from None


def run_trial(study: Any, name: str, searched: Ranges, lock: int) -> None:
    """Ask the study for values, train with them, and report the outcome to the study.

    Raises:
        UserError: the training failed. It is not repeated, as it would fail again.
    """
    trial = study.ask()
    experiment = f"{name}-{trial.number}"
    try:
        values = {key: suggest(trial, key, *spec) for key, spec in searched.items()}
        accuracy = trials.train(experiment, values, judge(trial, values), lock)
    except UserError:
        study.tell(trial, state=trial_state("FAIL"))
        raise
    state = "PRUNED" if accuracy is None else "COMPLETE"
    study.tell(trial, accuracy, state=trial_state(state))
    outcome = "stopped early" if accuracy is None else f"validation accuracy {accuracy:.2%}"
    chosen = ", ".join(f"{key}={value}" for key, value in values.items())
    print(f"{experiment}: {outcome}; {chosen}", flush=True)


def judge(trial: Any, values: Mapping[str, Any]) -> Callable[[trials.Row], bool]:
    """A function that reports an epoch to the study, and returns whether to stop after it.

    It never stops after the last epoch, when no time is left to save. The members of an ensemble
    train one after the other, so it is judged only at the end.
    """
    ensemble = values.get("train.ensemble", params.read()["train"]["ensemble"])

    def hopeless(row: trials.Row) -> bool:
        if ensemble > 1:
            return False
        trial.report(row["val_accuracy"], row["epoch"])
        return row["epoch"] < row["epochs"] and trial.should_prune()

    return hopeless


if __name__ == "__main__":
    stage.run(main)
