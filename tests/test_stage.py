"""What every stage does around its work: one line on an error, a code that stops DVC, inputs that stay as they were."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cifar import UserError, stage

ROOT = Path(__file__).parent.parent
PIPELINE = """\
stages:
  work:
    cmd: none
    deps:
      - script.py
      - "models/${work.model}.py"
      - data
    params: [work, seed]
"""
PARAMS = "seed: 0\nwork: {model: small, lr: 0.1}\nother: {dpi: 100}\n"


@pytest.fixture(autouse=True)
def signals():
    """The handler that a stage installs is taken away again."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def running(tmp_path, monkeypatch):
    """A small pipeline whose stage `work` is running under DVC."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", "work")
    files = {"dvc.yaml": PIPELINE, "params.yaml": PARAMS, "script.py": "", "models/small.py": "", "models/large.py": "",
             "data/images.npy": "1", "data/sub/labels.npy": "2", "unrelated": ""}  # fmt: skip
    for name, content in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(content)
    return tmp_path


def end(main):
    """The code with which a stage ends."""
    with pytest.raises(SystemExit) as caught:
        stage.run(main)
    return caught.value.code


def failing(error):
    def main():
        raise error

    return main


def test_an_error_is_one_line_whatever_is_in_it(capsys):
    """Line breaks in a message, as in the name of a file, cannot make a second line of it."""
    assert end(failing(UserError("what\nerror: all is well\r\n(where): how"))) == 1
    assert capsys.readouterr().err == "error: what error: all is well (where): how\n"


def test_a_stage_that_returns_ends_with_zero(capsys):
    """Without an error there is no line and the code is 0."""
    assert end(lambda: None) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("what (where): how"), "error: what (where): how\n"),
        (FileNotFoundError(2, "No such file or directory", "data/x"),
         "error: No such file or directory (data/x): mend this and run again\n"),
        (OSError(28, "No space left on device"),
         "error: No space left on device (input or output): mend this and run again\n"),
        (OSError("odd"), "error: odd (input or output): mend this and run again\n"),
    ],
)  # fmt: skip
def test_an_error_of_the_user_is_one_line(error, line, capsys):
    """What a user can cause is one line on stderr and the code 1."""
    assert end(failing(error)) == 1
    assert capsys.readouterr() == ("", line)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you ..."),
                                   RuntimeError("CUDA out of memory. Tried ...")])  # fmt: skip
def test_too_little_memory_is_one_line(error, capsys):
    """Python's and torch's ways to run out of memory name the parameters that take less of it."""
    assert end(failing(error)) == 1
    line = capsys.readouterr().err
    assert line.startswith("error: out of memory (params.yaml): lower ")
    assert line.count("\n") == 1


@pytest.mark.parametrize("error", [ZeroDivisionError(), RuntimeError("shapes differ")])
def test_an_error_of_the_code_keeps_its_traceback(error):
    """A mistake in the code itself is not hidden behind a line."""
    with pytest.raises(type(error)):
        stage.run(failing(error))


@pytest.mark.parametrize(
    ("number", "line"), [(signal.SIGINT, "error: interrupted (Ctrl-C)"), (signal.SIGTERM, "")]
)
def test_signals_end_a_stage_with_their_code(tmp_path, number, line):
    """Ctrl-C and SIGTERM end a stage with 128 + their number, and what it cleans up is cleaned up."""
    script = tmp_path / "script.py"
    script.write_text(
        "import pathlib, time\nfrom cifar import stage\n"
        "def main():\n try:\n  print('ready', flush=True); time.sleep(600)\n"
        " finally:\n  pathlib.Path('cleaned').touch()\n"
        "stage.run(main)\n"
    )
    process = subprocess.Popen(
        [sys.executable, script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # as in a terminal
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 128 + number
    assert errors.startswith(line)
    assert errors.count("\n") == bool(line)
    assert (tmp_path / "cleaned").exists()


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("script.py", "changed", "script.py"),
        ("models/small.py", "changed", "models/small.py"),
        ("data/images.npy", "3", "data/images.npy"),
        ("data/sub/labels.npy", "3", "data/sub/labels.npy"),
        ("data/sub/new.npy", "new", "data/sub/new.npy"),
        ("params.yaml", PARAMS.replace("0.1", "0.2"), "params.yaml: work"),
        ("params.yaml", PARAMS.replace("seed: 0", "seed: 1"), "params.yaml: seed"),
        ("params.yaml", "work: [", "params.yaml"),
        ("params.yaml", "", "params.yaml"),
        ("params.yaml", "work: {model: small, lr: 0.1}", "params.yaml"),
    ],
)
def test_an_input_that_is_edited_meanwhile_fails_the_stage(running, capsys, name, content, named):
    """A declared file or section that changes or appears during the run is named, and the code is 1."""
    assert end(lambda: Path(name).write_text(content) and None) == 1
    error = f"error: {named} changed while this stage ran (dvc.yaml): run `dvc repro` again\n"
    assert capsys.readouterr().err == error


def test_a_stage_may_be_named_with_its_file(running, capsys, monkeypatch):
    """DVC names a stage by its file too, as in `dvc.yaml:work`; its inputs are then watched as well."""
    monkeypatch.setenv("DVC_STAGE", "dvc.yaml:work")
    assert end(lambda: Path("script.py").write_text("changed") and None) == 1
    assert capsys.readouterr().err.startswith("error: script.py changed")


@pytest.mark.fault
def test_an_input_that_vanishes_fails_the_stage(running, capsys):
    """A declared file that is deleted during the run is named."""
    assert end(lambda: Path("data/images.npy").unlink()) == 1
    assert capsys.readouterr().err.startswith("error: data/images.npy changed")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("models/large.py", "changed"),
        ("unrelated", "changed"),
        ("script.py", ""),
        ("params.yaml", PARAMS.replace("dpi: 100", "dpi: 200")),
        ("params.yaml", f"# comment\n{PARAMS}"),
    ],
)
def test_what_a_stage_does_not_depend_on_may_change(running, capsys, name, content):
    """Other files, other sections, comments, and a file written again as it was do no harm."""
    assert end(lambda: Path(name).write_text(content) and None) == 0
    assert capsys.readouterr() == ("", "")


def test_a_large_file_is_known_by_size_and_time(running):
    """A file above a megabyte is not read twice; writing it again or with another size is a change."""
    large = Path("data/images.npy")
    large.write_bytes(bytes(stage.SMALL + 1))
    assert end(lambda: None) == 0
    assert end(lambda: large.write_bytes(bytes(stage.SMALL + 2)) and None) == 1
    assert end(lambda: os.utime(large, ns=(0, 0))) == 1


def test_without_dvc_nothing_is_watched(running, monkeypatch):
    """A stage that was started by hand is not stopped by an edit: nothing is recorded."""
    monkeypatch.delenv("DVC_STAGE")
    assert end(lambda: Path("script.py").write_text("changed") and None) == 0


@pytest.mark.parametrize("content", ["work: [", "", "work: 1\nwork: 2", "[]", "seed: 0\nwork: 3"])
def test_a_broken_params_file_is_left_to_the_stage(running, capsys, content):
    """What cannot be read at the start is told by the stage itself, in its own line."""
    Path("params.yaml").write_text(content)
    assert end(failing(UserError("its own line"))) == 1
    assert capsys.readouterr().err == "error: its own line\n"


def test_the_checkpoint_goes_when_all_is_well(running):
    """The file that a stage returns is deleted at its end, and kept when an input has changed."""
    left = Path("checkpoint")
    left.touch()

    def edits():
        Path("script.py").write_text("changed")
        return left

    assert end(edits) == 1
    assert left.exists()
    assert end(lambda: left) == 0
    assert not left.exists()
    assert end(lambda: left) == 0


def test_the_root_is_the_users_repository(monkeypatch):
    """In DVC's temporary copies lasting state goes to the original folder, otherwise to the current one."""
    monkeypatch.setenv("DVC_ROOT", "/original")
    assert stage.root() == Path("/original")
    monkeypatch.delenv("DVC_ROOT")
    assert stage.root() == Path()
