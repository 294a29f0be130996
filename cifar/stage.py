"""The frame of every program: one line for an error, and an exit code that stops DVC.

Under DVC it also checks that a stage declares what it imports, and that its inputs do not change
meanwhile. Programs import this module first, so that an error of a later import is one line, too.
"""

import argparse
import contextlib
import errno
import io
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn

from cifar import UserError, memory, pipeline, yaml12

KERNEL = re.compile(
    r"\b(CUDA|cuDNN|CUDNN|CUBLAS|cuBLAS|HIP|MPS|NCCL|nvrtc|PassManager)\b.*(error|failed)|"
    r"kernel image|MPS device|CUDA GPU|could not \w+ a primitive|unable to find an? .*(engine|alg)",
    re.S | re.I,
)
LIBRARY = re.compile(r"(site|dist)-packages[/\\](torch|torchvision|triton)[/\\]")
SIGPIPE = 128 + 13  # the exit code of a program whose reader has gone
OUTPUTS = ("data", "metrics", "models", "plots")  # folders that stages fill


def report_import_error(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print in one line why a program cannot load its libraries."""
    if problem := loading_problem(error):
        sys.stderr.write(f"error: {problem}\n")
    else:
        sys.__excepthook__(kind, error, trace)


def loading_problem(error: BaseException) -> str:
    """Why a library cannot be loaded; empty if the error has another cause."""
    advice = "free memory, or install the packages again with `make install`"
    text = " ".join(str(error).split())[-200:]
    if isinstance(error, KeyboardInterrupt):  # some libraries raise SIGINT when out of memory
        advice = "run the same command again; if that does not help, free memory"
        return f"interrupted while the libraries were loaded (python): {advice}"
    if memory.ran_out(error):
        return f"too little memory to load the libraries (python): {advice}"
    foreign = not (getattr(error, "name", "") or "").startswith(("cifar", "stages"))
    if isinstance(error, ImportError | OSError) and foreign:
        return f"a library cannot be loaded, {text} (python): {advice}"
    return ""


def loads_a_library(error: BaseException) -> bool:
    """Whether the error was raised while `main` imported a module."""
    return any(frame.name == "<module>" for frame in traceback.extract_tb(error.__traceback__))


sys.excepthook = report_import_error


def run(main: Callable[[], Callable[[], None] | None], text: str | None = None) -> NoReturn:
    """Call `main` and exit with 0; after an error, print one line to stderr and exit with 1.

    After a signal, the exit code is 128 + its number: DVC would record a training that catches
    Ctrl-C and exits with 0 as finished. DVC hashes dependencies and parameters after the command,
    and so would record edits made meanwhile as if they had been used: such a stage fails.

    Args:
        main: may return a function, which is called if the inputs did not change.
        text: the docstring of a program without options. `--help` prints it, and any other
            argument is rejected before anything runs.
    """
    sys.excepthook = sys.__excepthook__  # the imports of the program's file are done
    signal.signal(signal.SIGTERM, terminate)
    prepare_streams()
    code: int | str | None = 1
    try:
        attempt(main, text)
        code = 0
    except SystemExit as end:
        code = end.code
    finally:
        problem = flush_output()
    if isinstance(problem, BrokenPipeError):
        sys.exit(code or SIGPIPE)
    if problem and not code:
        fail(f"{problem.strerror} (standard output): {advice_for(problem)}")
    sys.exit(code)


def flush_output() -> OSError | None:
    """Write what is printed so far, and return what prevents it, if anything.

    Otherwise Python does it, after the last handler of errors.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        discard_output()
        return error
    return None


def attempt(main: Callable[[], Callable[[], None] | None], text: str | None) -> None:
    """Call `main`; turn each error that a user can cause into one line and an exit code."""
    try:
        if text:
            parser(text).parse_args()
        watch(main)
    except BrokenPipeError:  # the reader has ended, as in `| head`
        discard_output()
        sys.exit(SIGPIPE)
    except UserError as error:
        fail(f"{error}{way_back()}")
    except ImportError as error:
        if not (problem := loading_problem(error)):
            raise
        fail(problem)
    except OSError as error:
        where = error.filename or "input or output"
        fail(f"{error.strerror or error} ({where}): {advice_for(error)}")
    except (MemoryError, RuntimeError) as error:
        loading = memory.ran_out(error) and loads_a_library(error)
        fail(loading_problem(error) if loading else explain(error))
    except KeyboardInterrupt as error:
        advice = "run the same command again; a training resumes after its last whole epoch"
        pressed = f"interrupted (Ctrl-C): {advice}"
        fail(loading_problem(error) if loads_a_library(error) else pressed, 128 + signal.SIGINT)


def parser(text: str | None) -> argparse.ArgumentParser:
    """A parser whose `--help` begins with `text`, the program's docstring, unchanged."""
    path = Path(sys.argv[0]).with_suffix("")
    program = ".".join(path.parts[-2:]).removesuffix(".__main__")
    return argparse.ArgumentParser(
        prog=f"python -m {program}",
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def watch(main: Callable[[], Callable[[], None] | None]) -> None:
    """Call `main`, and record how long it took.

    Raises:
        UserError: an input of the stage changed meanwhile, or the stage imports a file of the
            repository that it does not declare.
    """
    start = time.monotonic()
    show_edits_to_git()
    pipeline.check_imports()
    before = pipeline.inputs()
    clean_up = main()
    pipeline.check_imports()
    after = pipeline.inputs()
    if changed := [key for key in after | before if after.get(key) != before.get(key)]:
        raise UserError(
            f"{changed[0]} changed while this stage ran (dvc.yaml): run `dvc repro` again"
        )
    if clean_up:
        clean_up()
    pipeline.note_time(time.monotonic() - start)


def discard_output() -> None:
    """Redirect standard output to /dev/null: nobody reads it, or it cannot be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def explain(error: MemoryError | RuntimeError) -> str:
    """The message for an error in the libraries or the hardware.

    Raises:
        RuntimeError: the error itself, if this project's code is at fault.
    """
    if memory.ran_out(error):
        return "out of memory (params.yaml): lower train.batch_size or preprocess.image_size"
    frames = traceback.extract_tb(error.__traceback__)
    inside = bool(frames) and LIBRARY.search(frames[-1].filename)
    kind = type(error).__module__.startswith("torch.")
    if not inside and not kind and not KERNEL.search(str(error)):
        raise error
    reason = str(error).strip().partition("\n\n")[0]  # what follows is about debugging torch
    problem = " ".join(reason.split())[:200]
    advice = "set train.compile to none, or the stage's device to cpu"
    return f"PyTorch failed, {problem} (params.yaml): {advice}"


def advice_for(error: OSError) -> str:
    missing = isinstance(error, FileNotFoundError) and isinstance(error.filename, str)
    if missing and Path(error.filename).parts[:1] in [(folder,) for folder in OUTPUTS]:
        return "`dvc repro` makes it"
    if error.errno == errno.EMFILE:
        return "raise the limit, `ulimit -n 65536`, and run again"
    return "fix this and run again"


def way_back() -> str:
    """How to restore the results that DVC removed before this stage; empty if there were none."""
    if not pipeline.running() or pipeline.root().resolve() != Path.cwd():
        return ""  # started by hand, or in a copy of the repository: nothing is lost
    try:
        recorded = yaml12.read("dvc.lock")["stages"]
    except (OSError, UserError, LookupError, TypeError):
        return ""
    if pipeline.running() not in recorded:
        return ""
    return "; `dvc repro` with the previous values restores the previous results"


def prepare_streams() -> None:
    """Make it safe to print anything.

    Streams that the shell closed, as `>&-` does, are replaced with /dev/null. Characters that the
    terminal's encoding does not have are escaped.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  open until the end
        if isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def show_edits_to_git() -> None:
    """Touch the files that DVC edits, so that Git notices the edits.

    DVC may rewrite params.yaml without changing its size. If that happens within the second that
    Git's index has for the file, Git considers it unchanged, and `git checkout params.yaml` does
    nothing.
    """
    if pipeline.running():
        for path in [Path("params.yaml"), *Path("metrics").glob("*.json")]:
            with contextlib.suppress(OSError):
                os.utime(path)


def plural(count: int, noun: str) -> str:
    """'1 image', '2 images'."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def fail(message: str, code: int = 1) -> NoReturn:
    # Text from an untrusted file must not control the terminal.
    line = re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", " ".join(message.splitlines()))
    sys.stderr.write(f"error: {line}\n")  # one write: several processes may fail at once
    sys.stderr.flush()
    sys.exit(code)


def terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Turn SIGTERM into an exception, so that temporary files are removed before the exit."""
    sys.exit(128 + number)
