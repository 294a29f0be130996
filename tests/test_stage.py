"""How a stage ends: errors in one line, exit codes that stop DVC, and inputs that have changed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cifar import UserError, pipeline, stage

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
    """Restore the signal handlers and the exception hook that a stage replaces."""
    numbers = (signal.SIGTERM, signal.SIGPIPE)
    before = [signal.getsignal(number) for number in numbers]
    hook = sys.excepthook
    yield
    sys.excepthook = hook
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def running(tmp_path, monkeypatch):
    """A small pipeline, with the environment in which DVC runs its stage `work`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", "work")
    files = {"dvc.yaml": PIPELINE, "params.yaml": PARAMS, "script.py": "", "unrelated": ""}
    files |= {"models/small.py": "", "models/large.py": ""}
    files |= {"data/images.npy": "1", "data/sub/labels.npy": "2"}
    for name, content in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(content)
    return tmp_path


def end(main):
    """The exit code of a stage."""
    with pytest.raises(SystemExit) as caught:
        stage.run(main)
    return caught.value.code


@pytest.mark.parametrize(("word", "code"), [("--help", 0), ("now", 2)])
def test_a_program_without_options_starts_only_without_arguments(word, code, monkeypatch, capsys):
    """`--help` prints the description, any other argument is refused; neither runs the program."""
    monkeypatch.setattr(sys, "argv", ["/somewhere/tools/clean.py", word])
    with pytest.raises(SystemExit) as caught:
        stage.run(failing(AssertionError("it started")), "Remove\n\n    everything")
    assert caught.value.code == code
    printed = "".join(capsys.readouterr())
    assert printed.startswith("usage: python -m tools.clean [-h]\n")
    assert ("\nRemove\n\n    everything\n" in printed) == (code == 0)


def failing(error):
    def main():
        raise error

    return main


def test_an_error_is_one_line_whatever_is_in_it(capsys):
    """Line breaks in a message, for example from a file's name, do not create a second line."""
    assert end(failing(UserError("what\nerror: all is well\r\n(where): how"))) == 1
    assert capsys.readouterr().err == "error: what error: all is well (where): how\n"


def test_a_stage_that_returns_ends_with_zero(capsys):
    """Without an error, nothing is printed and the exit code is 0."""
    assert end(lambda: None) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("what (where): how"), "error: what (where): how\n"),
        (FileNotFoundError(2, "No such file or directory", "data/x"),
         "error: No such file or directory (data/x): `dvc repro` makes it\n"),
        (FileNotFoundError(2, "No such file or directory", "/home/x"),
         "error: No such file or directory (/home/x): fix this and run again\n"),
        (OSError(28, "No space left on device"),
         "error: No space left on device (input or output): fix this and run again\n"),
        (OSError(24, "Too many open files", "a.tar"),
         "error: Too many open files (a.tar): raise the limit, `ulimit -n 65536`, and run again\n"),
        (OSError("odd"), "error: odd (input or output): fix this and run again\n"),
    ],
)  # fmt: skip
def test_an_error_of_the_user_is_one_line(error, line, capsys):
    """An error that a user can cause is one line on stderr, with exit code 1."""
    assert end(failing(error)) == 1
    assert capsys.readouterr() == ("", line)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you ..."),
        RuntimeError("CUDA out of memory. Tried ..."),
    ],
)
def test_too_little_memory_is_one_line(error, capsys):
    """When Python or torch runs out of memory, the error names the parameters to lower."""
    assert end(failing(error)) == 1
    line = capsys.readouterr().err
    assert line.startswith("error: out of memory (params.yaml): lower ")
    assert line.count("\n") == 1


@pytest.mark.parametrize("error", [ZeroDivisionError(), RuntimeError("shapes differ")])
def test_an_error_of_the_code_keeps_its_traceback(error):
    """An error in the code itself keeps its traceback instead of becoming one line."""
    with pytest.raises(type(error)):
        stage.run(failing(error))


@pytest.mark.parametrize(
    ("number", "line"), [(signal.SIGINT, "error: interrupted (Ctrl-C)"), (signal.SIGTERM, "")]
)
def test_signals_end_a_stage_with_their_code(tmp_path, number, line):
    """Ctrl-C and SIGTERM end a stage with 128 + their number, after it cleans up."""
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
        ("dvc.yaml", "stages: {}", "dvc.yaml"),
        ("params.yaml", "", "params.yaml"),
        ("params.yaml", "work: {model: small, lr: 0.1}", "params.yaml"),
    ],
)
def test_an_input_that_is_edited_meanwhile_fails_the_stage(running, capsys, name, content, named):
    """The error names a declared file or section that changed or appeared; the exit code is 1."""
    assert end(lambda: Path(name).write_text(content) and None) == 1
    error = f"error: {named} changed while this stage ran (dvc.yaml): run `dvc repro` again\n"
    assert capsys.readouterr().err == error


def test_a_stage_may_be_named_with_its_file(running, capsys, monkeypatch):
    """If DVC calls the stage `dvc.yaml:work`, its inputs are watched as well."""
    monkeypatch.setenv("DVC_STAGE", "dvc.yaml:work")
    assert end(lambda: Path("script.py").write_text("changed") and None) == 1
    assert capsys.readouterr().err.startswith("error: script.py changed")


@pytest.mark.fault
def test_an_input_that_vanishes_fails_the_stage(running, capsys):
    """The error names a declared file that was deleted during the run."""
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
    """Edits of other files, other sections or comments, and rewrites without a change, are fine."""
    assert end(lambda: Path(name).write_text(content) and None) == 0
    assert capsys.readouterr() == ("", "")


def test_a_large_file_is_known_by_size_and_time(running):
    """A file above a megabyte counts as changed if its size or modification time differs."""
    large = Path("data/images.npy")
    large.write_bytes(bytes(pipeline.SMALL + 1))
    assert end(lambda: None) == 0
    assert end(lambda: large.write_bytes(bytes(pipeline.SMALL + 2)) and None) == 1
    assert end(lambda: os.utime(large, ns=(0, 0))) == 1


def test_without_dvc_nothing_is_watched(running, monkeypatch):
    """An edit does not stop a stage that was started by hand, because nothing is recorded."""
    monkeypatch.delenv("DVC_STAGE")
    assert end(lambda: Path("script.py").write_text("changed") and None) == 0


@pytest.mark.parametrize("content", ["work: [", "", "work: 1\nwork: 2", "[]", "seed: 0\nwork: 3"])
def test_a_broken_params_file_is_left_to_the_stage(running, capsys, content):
    """If params.yaml cannot be read at the start, only the stage's own error is printed."""
    Path("params.yaml").write_text(content)
    assert end(failing(UserError("its own line"))) == 1
    assert capsys.readouterr().err == "error: its own line\n"


def test_the_checkpoint_goes_when_all_is_well(running):
    """The function that a stage returns is called at its end, unless an input has changed."""
    called = []

    def edits():
        Path("script.py").write_text("changed")
        return lambda: called.append("after an edit")

    assert end(edits) == 1
    assert called == []
    assert end(lambda: lambda: called.append("well")) == 0
    assert called == ["well"]


@pytest.mark.hostile
@pytest.mark.parametrize(
    "name", [".DS_Store", "Thumbs.db", "desktop.ini", ".nfs0001", ".ipynb_checkpoints/x.ipynb"]
)
def test_files_that_systems_leave_are_no_input(running, name):
    """Files that a file manager or a network drive adds to a data folder do not end a stage."""
    path = Path("data") / name

    def drop():
        path.parent.mkdir(exist_ok=True)
        path.touch()

    assert end(drop) == 0


def test_git_sees_what_dvc_edits(running):
    """A stage run by DVC first touches params.yaml and the metrics, and no other file."""
    names = ["params.yaml", "metrics/test.json", "script.py"]
    Path("metrics").mkdir()
    Path("metrics/test.json").touch()
    for name in names:
        os.utime(name, (0, 0))
    assert end(lambda: None) == 0
    assert [Path(name).stat().st_mtime > 0 for name in names] == [True, True, False]


@pytest.mark.parametrize(
    ("recorded", "root", "named"),
    [("work", ".", True), ("other", ".", False), ("", ".", False), ("work", "/", False)],
)
def test_a_failed_stage_says_how_to_restore_what_dvc_removed(
    running, capsys, monkeypatch, recorded, root, named
):
    """It does so in the workspace only, and only if dvc.lock has earlier results of the stage."""
    monkeypatch.setenv("DVC_ROOT", root)
    if recorded:
        Path("dvc.lock").write_text(f"stages: {{{recorded}: {{cmd: run}}}}\n")
    assert end(failing(UserError("bad (here): correct it"))) == 1
    line = capsys.readouterr().err
    assert line.startswith("error: bad (here): correct it")
    way_back = "; `dvc repro` with the previous values restores the previous results\n"
    assert line.endswith(way_back) == named


NO_STAGES = {
    "empty": b"",
    "no stages": b"vars: []\n",
    "{}": b"stages: {}\n",
    "null": b"stages:\n",
    "a list": b"stages: []\n",
    "text": b"stages: work\n",
    "a stage of nothing": b"stages: {work: }\n",
    "conflict": b"<<<<<<< HEAD\nstages: {}\n=======\nstages: {work: {}}\n>>>>>>> x\n",
    "UTF-16": "stages: {}\n".encode("utf-16"),
}


@pytest.mark.hostile
@pytest.mark.parametrize("content", NO_STAGES.values(), ids=NO_STAGES)
def test_a_pipeline_without_stages_is_one_line(content, running, capsys):
    """The error names dvc.yaml; a running stage ends normally, but records no time."""
    Path("dvc.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"\(dvc.yaml.*\): "):
        pipeline.stages()
    assert end(lambda: None) == 0
    assert capsys.readouterr() == ("", "")
    assert not (running / "runs").exists()


def test_the_times_of_stages_are_bounded(running):
    """The latest times of each stage are kept; those of other stages do not count."""
    folder = running / "runs/times"
    folder.mkdir(parents=True)
    for number in range(pipeline.KEPT_TIMES + 5):
        (folder / f"work-{number:04}").touch()
        os.utime(folder / f"work-{number:04}", (number, number))
    (folder / "other-0").touch()
    Path("dvc.yaml").write_text(PIPELINE + "    outs: [unrelated]\n")
    assert end(lambda: None) == 0
    notes = sorted(path.name for path in folder.glob("work-*"))
    assert len(notes) == pipeline.KEPT_TIMES
    assert pipeline.time_file("work").name in notes and "work-0000" not in notes
    assert (folder / "other-0").exists()


class CompilerError(RuntimeError):
    """An error like those of torch.compile."""


CompilerError.__module__ = "torch._inductor.exc"


@pytest.mark.hostile
@pytest.mark.parametrize(
    "error",
    [
        CompilerError("InvalidCxxCompiler: No working C++ compiler found\nin cc\n\nSet X=1"),
        RuntimeError("CUDA error: no kernel image is available for execution on the device"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    ],
)
def test_a_compiler_or_kernel_that_fails_is_one_line(error, capsys):
    """For errors of torch.compile and of kernels, one line names the parameters to change."""
    assert end(failing(error)) == 1
    line = capsys.readouterr().err
    assert line.startswith("error: PyTorch failed, ") and line.count("\n") == 1
    assert "set train.compile to none" in line and "Set X" not in line


def script(code, command="{python} script.py", **environment):
    """Run a program in a shell; return the completed process."""
    folder = environment.pop("folder")
    (folder / "script.py").write_text(code)
    outside = ("DVC_", "PYTHONUNBUFFERED")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(outside)}
    return subprocess.run(
        ["bash", "-c", command.format(python=sys.executable)],
        cwd=folder,
        env=inherited | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


TALKS = "from cifar import stage\nstage.run(lambda: print(*['line'] * 100_000, sep='\\n'))\n"


@pytest.mark.fault
def test_a_reader_that_leaves_ends_a_program_quietly(tmp_path):
    """`| head -1` gets its line, and no error about a pipe is printed."""
    done = script(TALKS, "{python} script.py | head -1", folder=tmp_path)
    assert (done.stdout, done.stderr) == ("line\n", "")


SAYS = """
from cifar import UserError, stage
def main():
    print("line")
    {end}
stage.run(main, "What it does.")
"""


@pytest.mark.fault
@pytest.mark.parametrize(
    ("end", "arguments", "errors"),
    [
        ("return", "", ""),
        ("return", "--help", ""),
        ("raise UserError('bad (x): fix it')", "", "error: bad (x): fix it\n"),
    ],
)
def test_a_reader_that_has_left_before_the_end(tmp_path, end, arguments, errors):
    """What is still to be written when a program ends, in any way, raises nothing."""
    command = f"{{python}} script.py {arguments} | true; exit ${{{{PIPESTATUS[0]}}}}"
    done = script(SAYS.format(end=end), command, folder=tmp_path)
    assert (done.returncode, done.stderr) == (1 if errors else 141, errors)


@pytest.mark.fault
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
@pytest.mark.parametrize(
    ("end", "errors"),
    [
        ("1 / 0", "Traceback"),
        ("return", "error: No space left on device (standard output): fix this and run again\n"),
        ("raise UserError('bad (x): fix it')", "error: bad (x): fix it\n"),
    ],
)
def test_output_that_cannot_be_written_is_one_line(tmp_path, end, errors):
    """Output into a file on a full disk ends in one line and a code that is not 0."""
    done = script(SAYS.format(end=end), "{python} script.py > /dev/full", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(errors) and "Exception ignored" not in done.stderr


@pytest.mark.fault
def test_a_terminal_without_the_characters_gets_them_escaped(tmp_path):
    """A name that the encoding of the terminal does not have is printed, not raised."""
    code = "from cifar import stage\nstage.run(lambda: print('\\u65e5.png'))\n"
    done = script(code, folder=tmp_path, PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stdout) == (0, "\\u65e5.png\n")


@pytest.mark.fault
@pytest.mark.parametrize("streams", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_error(tmp_path, streams):
    """A program whose output streams are closed still does its work."""
    code = (
        "import sys\nfrom cifar import stage\n"
        "def main():\n print('x'); sys.stderr.write('y'); open('done', 'w').close()\n"
        "stage.run(main)\n"
    )
    done = script(code, "{python} script.py " + streams, folder=tmp_path)
    assert done.returncode == 0 and (tmp_path / "done").exists()
    assert "Traceback" not in done.stderr


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("raise MemoryError", "too little memory to load the libraries"),
        ("import no_such_library", "a library cannot be loaded, No module named 'no_such_library'"),
        ("raise OSError('libtorch.so: failed to map')", "a library cannot be loaded, libtorch.so"),
        ("raise RuntimeError('can\\'t start new thread')", "too little memory to load"),
        ("import signal; signal.raise_signal(signal.SIGINT)", "interrupted while the libraries"),
        ("raise ImportError('nine\\nlines')", "a library cannot be loaded, nine lines"),
    ],
)
def test_an_error_before_the_stage_is_one_line(tmp_path, code, line):
    """An error that keeps a library from loading is one line, which does not mention Ctrl-C."""
    done = script(f"from cifar import stage\n{code}\n", folder=tmp_path)
    assert done.returncode
    assert done.stderr.startswith(f"error: {line}") and done.stderr.count("\n") == 1
    assert "Ctrl-C" not in done.stderr


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("import absent_library", "a library cannot be loaded, No module named 'absent_library'"),
        ("raise KeyboardInterrupt", "interrupted while the libraries were loaded"),
        ("raise MemoryError", "too little memory to load the libraries"),
    ],
)
def test_a_library_that_fails_late_is_one_line(tmp_path, code, line):
    """The same for a library that a program loads only when it needs it."""
    (tmp_path / "late.py").write_text(code)
    main = "from cifar import stage\ndef main():\n import late\nstage.run(main)\n"
    done = script(main, folder=tmp_path)
    assert done.returncode
    assert done.stderr.startswith(f"error: {line}") and done.stderr.count("\n") == 1
    assert "Ctrl-C" not in done.stderr


@pytest.mark.hostile
@pytest.mark.parametrize("when", ["import helper\n", ""])
def test_code_that_dvc_does_not_watch_is_refused(tmp_path, when):
    """A stage that imports a file of the repository must declare it, whenever it imports it."""
    code = f"from cifar import stage\n{when}def main():\n import helper\nstage.run(main)\n"
    (tmp_path / "helper.py").write_text("x = 1\n")
    (tmp_path / "params.yaml").write_text("work: {}\n")
    pipeline = "stages: {{work: {{cmd: python script.py, deps: [{deps}]}}}}\n"
    for deps in ("script.py", "script.py, helper.py"):
        (tmp_path / "dvc.yaml").write_text(pipeline.format(deps=deps))
        done = script(code, folder=tmp_path, DVC_STAGE="work")
        refused = "error: stage work imports helper.py, which is not among its dependencies "
        assert done.stderr.startswith("" if "helper" in deps else refused)
        assert done.returncode == (0 if "helper" in deps else 1), done.stderr


def test_an_error_of_the_code_itself_keeps_its_traceback(tmp_path):
    """An error at the top level of a program keeps Python's traceback."""
    done = script("from cifar import stage\n1 / 0\n", folder=tmp_path)
    assert "Traceback" in done.stderr and "ZeroDivisionError" in done.stderr


@pytest.mark.hostile
@pytest.mark.skipif(sys.platform != "linux", reason="macOS enforces no limit on memory")
@pytest.mark.parametrize("kilobytes", [300_000, 1_800_000])
def test_little_memory_before_a_stage_is_one_line(tmp_path, kilobytes):
    """If torch's libraries do not fit into memory, the stage says so in one line."""
    command = f"ulimit -v {kilobytes}; {{python}} -m stages.train"
    done = script("", command, folder=tmp_path)
    assert done.returncode
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "(python): " in done.stderr and "Ctrl-C" not in done.stderr
