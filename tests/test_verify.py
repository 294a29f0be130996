"""`python -m tools.verify`: a recorded result is reproduced, and judged by the contract."""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, Project
from filelock import FileLock

from cifar import UserError
from cifar.experiments import recorded as recorded_module
from cifar.experiments import rerun
from tools.verify import main

pytestmark = pytest.mark.slow
# A pipeline like ours that takes no time. THREADS simulates another environment, and NOISE names a
# stage whose result differs from the recorded one.
PIPELINE = """
import json, os, sys
from pathlib import Path
import numpy as np
from ruamel.yaml import YAML
from safetensors.numpy import load, save

stage = sys.argv[1]
seed = YAML(typ="safe").load(Path("params.yaml"))["seed"]
threads = int(os.environ.get("THREADS", 2))
noise = 1 if os.environ.get("NOISE") == stage else 0
if os.environ.get("STOP") == stage:
    sys.exit("error: stopped")
def array(path, values):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)
def text(path, content):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(content)
if stage == "fetch":
    array("data/fetched/numbers.npy", np.arange(6) + noise)
    array("data/fetched/more/numbers.npy", np.arange(3))
elif stage == "preprocess":
    array("data/processed/numbers.npy", np.load("data/fetched/numbers.npy") * 2 + noise)
elif stage == "train":
    weight = np.load("data/processed/numbers.npy") + 0.25 * (threads - 2) + noise + seed
    provenance = {"device": "cpu, AVX2", "threads": threads, "processes": 1, "versions": {}}
    layers = [{"name": "second"}, {"name": "last"}]
    record = json.dumps({"model": {"layers": layers, "provenance": provenance}})
    tensors = {"last.weight": weight, "second.weight": weight / 2}
    Path("models").mkdir(exist_ok=True)
    Path("models/model.safetensors").write_bytes(save(tensors, {"model": record}))
else:
    weight = load(Path("models/model.safetensors").read_bytes())["last.weight"]
    accuracy = round(0.5 + float(weight[0]) / 100, 6)
    numbers = {"accuracy": accuracy}
    numbers |= {"accuracy_low": accuracy - 0.01, "accuracy_high": accuracy + 0.01}
    text("metrics/test.json", json.dumps({"test": numbers}))
    classes = ["cat" if x < 5 else "dog" for x in weight]
    rows = [f"test/{i},cat,{classes[i]},{x:.4f}\\\\n" for i, x in enumerate(weight)]
    text("plots/predictions.csv", "image,actual,predicted,confidence\\\\n" + "".join(rows))
"""
STAGES = """\
stages:
  fetch:
    cmd: python pipeline.py fetch
    deps: [pipeline.py]
    outs: [data/fetched]
  preprocess:
    cmd: [python pipeline.py preprocess && true, "true"]
    deps: [pipeline.py, data/fetched]
    outs: [data/processed]
  train:
    cmd: python pipeline.py train
    deps: [pipeline.py, data/processed]
    params: [seed]
    outs: [models/model.safetensors]
  evaluate:
    cmd: python pipeline.py evaluate
    deps: [pipeline.py, models/model.safetensors]
    metrics: [metrics/test.json: {cache: false}]
    plots: [plots/predictions.csv]
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A repository with the quick pipeline and its committed result. Tests work in `quick`."""
    project = Project(tmp_path_factory.mktemp("verify") / "project")
    project.path.mkdir()
    files = {"pipeline.py": PIPELINE, "dvc.yaml": STAGES, "params.yaml": "seed: 0\n"}
    files |= {".gitignore": "/runs/\n", "requirements.lock": ""}
    for name, content in files.items():
        (project.path / name).write_text(content.replace("\\\\n", "\\n"))
    project.run("git", "init", "--quiet")
    project.run("git", "config", "user.name", "Test")
    project.run("git", "config", "user.email", "test@example.org")
    project.run("dvc", "init", "--quiet")
    project.run("dvc", "repro", "--quiet")
    project.commit()
    return project


@pytest.fixture
def quick(recorded, tmp_path):
    return recorded.copy(tmp_path / "project")


@pytest.fixture
def verify(quick, monkeypatch, capfd):
    """Run the tool in the project, in this process: (exit code, stdout, stderr)."""

    def call(*options, **variables):
        recorded_module.storage.cache_clear()
        with monkeypatch.context() as patch:
            patch.chdir(quick.path)
            patch.setattr(sys, "argv", ["verify", *options])
            for name, value in variables.items():
                patch.setenv(name, value)
            try:
                main()
                code = 0
            except SystemExit as stop:
                code = stop.code
        assert quick.run("git", "status", "--porcelain").stdout == "", "the workspace is left alone"
        output = capfd.readouterr()
        return code, output.out, output.err

    return call


def lost(project, *lost_contents):
    """Delete these objects from DVC's cache."""
    for path in (project.path / ".dvc/cache").rglob("*"):
        if path.is_file() and path.read_bytes() in lost_contents:
            path.unlink()


def raw(project):
    """The contents of the files of the raw data."""
    return [path.read_bytes() for path in (project.path / "data/fetched").rglob("*.npy")]


def test_the_same_result(quick):
    """A result passes if the code and raw data of its commit alone give it again."""
    keep = raw(quick)
    for path in (quick.path / ".dvc/cache").rglob("*"):
        if path.is_file() and path.suffix != ".dir" and path.read_bytes() not in keep:
            path.unlink()
    for path in ("data", "models", "plots"):
        shutil.rmtree(quick.path / path)
    done = quick.run("python", "-m", "tools.verify", PYTHONPATH=str(ROOT), DVC_ROOT="/")
    assert "L1 held: every output is byte-identical." in done.stdout
    assert done.stdout.count("identical\n") == 4
    assert "data/fetched              from DVC, not made" in done.stdout
    assert not [path for path in (quick.path / "runs/verify").iterdir() if path.is_dir()]


def test_another_environment(verify):
    """Fewer threads gave different bytes: the report lists what differs, and L3 decides."""
    code, out, _ = verify(THREADS="1")
    text = " ".join(out.split())
    assert code == 0
    assert "2 of 2 tensors differ, first second.weight by up to 0.12, most last.weight" in text
    assert "threads 2 1" in text, "a row of the table: recorded, here"
    assert "1 of 3 values differs, first test.accuracy" not in text
    assert "3 of 3 values differ, first test.accuracy: 0.4975, recorded 0.5 (-0.0025)" in text
    assert "6 of 6 rows differ, first row 1: test/0,cat,cat,-0.2500, recorded" in text
    assert (
        "L1 does not apply, because the environment differs (threads 1 instead of 2), and" in text
    )
    assert "within the tolerance of L3: 49.75%, recorded 50.00% (tolerance 49.00% to 51.00%" in text
    assert "the recorded 95 % interval, as fewer than 3 seeds were run" in text
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.long
def test_an_accuracy_out_of_tolerance(verify):
    """Another environment excuses different bytes, but not a different accuracy."""
    code, out, _ = verify(THREADS="7")
    assert code == 1
    assert "Not reproduced: L1 does not apply" in out
    assert "but accuracy is outside the tolerance of L3" in " ".join(out.split())


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("train", "Not reproduced: 3 outputs differ, with the same device, threads and versions."),
        ("preprocess", "Not reproduced: data/processed differs, which L3 does not allow."),
    ],
)
def test_not_reproduced(verify, stage, message):
    """An output that differs in the same environment, or in a data stage, is not reproduced."""
    code, out, _ = verify(NOISE=stage)
    assert code == 1
    assert message in out


def test_the_recorded_file_is_lost(quick, verify):
    """Without the recorded model the report says what it cannot show."""
    lost(quick, (quick.path / "models/model.safetensors").read_bytes())
    code, out, _ = verify(NOISE="train")
    text = " ".join(out.split())
    assert code == 1
    assert "the difference cannot be shown: no models/model.safetensors of HEAD" in text
    assert "Not reproduced: 3 outputs differ, for an unknown reason." in out


def test_raw_data_that_are_lost(quick, verify):
    """Raw data in neither cache nor remote are a one-line error; --from-scratch fetches them."""
    lost(quick, *raw(quick))
    with pytest.raises(UserError, match=r"no data/fetched of HEAD .*push.*--from-scratch"):
        verify()
    code, out, _ = verify("--from-scratch")
    assert code == 0
    assert "fetch       data/fetched              identical" in out


@pytest.mark.long
def test_raw_data_from_a_remote(quick, verify):
    """Raw data that only the remote has come from there; a missing remote is a one-line error."""
    quick.run("dvc", "remote", "add", "--default", "storage", "../storage")
    quick.commit()
    quick.run("dvc", "push", "--quiet", "data/fetched")
    lost(quick, *raw(quick))
    code, out, _ = verify()
    assert code == 0
    assert "L1 held" in out
    shutil.rmtree(quick.path.with_name("storage"))
    with pytest.raises(UserError, match=r"no data/fetched of HEAD .*--from-scratch"):
        verify()


def test_damaged_raw_data(quick, verify):
    """A flipped bit in DVC's cache is an error, not a result that is not reproduced."""
    for path in (quick.path / ".dvc/cache").rglob("*"):
        if path.is_file() and path.read_bytes() in raw(quick):
            path.chmod(0o644)
            path.write_bytes(path.read_bytes()[:-1] + b"?")
            break
    with pytest.raises(UserError, match=r"data/fetched of HEAD .* is damaged"):
        verify()


def test_inputs_that_dvc_add_tracks(quick, verify):
    """A folder of pictures beside the code is taken from DVC's cache, too."""
    (quick.path / "pictures").mkdir()
    (quick.path / "pictures/cat.png").write_bytes(b"a picture")
    quick.run("dvc", "add", "--quiet", "pictures")
    pipeline = (quick.path / "dvc.yaml").read_text()
    changed = pipeline.replace("deps: [pipeline.py]", "deps: [pictures, pipeline.py]", 1)
    (quick.path / "dvc.yaml").write_text(changed)
    quick.run("dvc", "repro", "--quiet")
    quick.commit()
    commit = quick.run("git", "rev-parse", "HEAD").stdout[:12]
    interrupted = quick.path / "runs/verify" / commit / "clone/pictures"
    (interrupted.parents[1] / "done").mkdir(parents=True)
    quick.run("git", "clone", "--quiet", ".", str(interrupted.parent))
    interrupted.mkdir()
    code, out, _ = verify()
    assert code == 0 and "L1 held" in out
    (quick.path / "pictures/cat.png").unlink()
    lost(quick, b"a picture")
    with pytest.raises(UserError, match=r"^no pictures of .* in DVC's cache or a remote"):
        verify("--from-scratch")


def test_resumes(verify):
    """If interrupted, the same command resumes with the first stage that is not done."""
    with pytest.raises(UserError, match=r"stage evaluate failed.*run the same command again"):
        verify(STOP="evaluate")
    code, out, err = verify(NOISE="train")
    assert code == 0, "the training is not run again"
    assert "L1 held" in out
    assert "train: done before the interruption" in err
    assert "evaluate: python pipeline.py evaluate" in err
    assert verify(NOISE="train")[0] == 1, "a complete verification leaves nothing to resume"


@pytest.mark.long
def test_a_kept_clone_is_not_resumed(quick, verify):
    """--keep leaves the clone for inspection, and the next verification starts over."""
    _, _, err = verify("--keep")
    clone = quick.path / err.split("The clone is kept: ")[1].strip()
    assert (clone / "models/model.safetensors").is_file()
    assert verify(NOISE="train")[0] == 1
    assert not clone.exists()


def test_two_at_a_time(quick, verify):
    """A second verification of the same commit is refused in one line."""
    commit = quick.run("git", "rev-parse", "HEAD").stdout[:12]
    (quick.path / "runs/verify").mkdir(parents=True)
    with (
        FileLock(quick.path / f"runs/verify/{commit}.lock"),
        pytest.raises(UserError, match="another process is verifying HEAD"),
    ):
        verify()


@pytest.mark.long
def test_for_programs_and_for_pull_requests(verify):
    """--json has every output and the verdict; --badge is one line of Markdown."""
    code, out, _ = verify("--json", THREADS="1")
    report = json.loads(out)
    assert code == 0
    assert report["verdict"]["level"] == "L3"
    states = {output["path"]: output["state"] for output in report["outputs"]}
    assert states["data/processed"] == "identical"
    assert states["plots/predictions.csv"] == "differs"
    assert report["environment"] == [{"name": "threads", "recorded": "2", "here": "1"}]
    assert report["accuracy"]["made"] == 0.4975
    _, out, _ = verify("--badge")
    assert re.fullmatch(r"✅ `HEAD \(\w{7}\)` made again: 4 of 4 outputs .* L1 held: .*\n", out)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("metrics/test.json", "0.5", "0.9", "metrics/test.json in Git differs from"),
        ("pipeline.py", "import json", "import  json", "stage fetch was run with a different"),
        ("params.yaml", "seed: 0", "seed: 1", "stage train was run with a `seed`"),
        ("dvc.yaml", "pipeline.py train", "-m train", "stage train has a different command"),
        ("dvc.yaml", "  fetch:", "  more: {cmd: 'true'}\n  fetch:", "stage more was not run"),
        ("dvc.lock", "stages:", "<<<<<<< HEAD\nstages:", "dvc.lock of HEAD"),
        ("dvc.lock", "stages:", "stage:", "no stages"),
        ("dvc.lock", "stages:", "stages: {}\nmore:", "no stages"),
        ("dvc.lock", "md5:", "sum:", "damaged"),
        ("dvc.yaml", "stages:", "stages: [", "dvc.yaml of HEAD"),
    ],
)
def test_a_record_that_contradicts_its_commit(quick, verify, file, old, new, message):
    """Edited metrics and a lock file of other code, parameters or stages are one-line errors."""
    quick.edit(file, lambda text: text.replace(old, new))
    quick.commit()
    with pytest.raises(UserError, match=message):
        verify()


def test_stages_that_do_not_fit(quick, verify):
    """A lock file whose stages have not run on each other's latest outputs is refused."""
    quick.edit(
        "dvc.lock",
        lambda text: re.sub(r"(outs:\n    - path: data/fetched\n.*\n.*md5: .)", r"\g<1>0", text),
    )
    quick.commit()
    with pytest.raises(UserError, match="stage preprocess has not run on its latest inputs"):
        verify()


def test_no_record(quick, verify):
    """A commit without dvc.lock and an unknown name are one-line errors."""
    (quick.path / "dvc.lock").unlink()
    quick.commit()
    with pytest.raises(UserError, match=r"no recorded result, HEAD has no dvc.lock"):
        verify()
    with pytest.raises(UserError, match="no commit or experiment nothing"):
        verify("nothing")


@pytest.mark.long
def test_experiments(quick, verify):
    """An experiment is verified by its name, and seeds give the tolerance of L3."""
    for seed in (1, 2, 3):
        quick.run("dvc", "exp", "run", "--quiet", "--name", f"seed-{seed}", "-S", f"seed={seed}")
    quick.run("git", "checkout", "--force", "--quiet", "HEAD")
    code, out, _ = verify("seed-2")
    assert code == 0
    assert out.startswith("seed-2 (")
    code, out, _ = verify("seed-2", THREADS="5")
    text = " ".join(out.split())
    assert code == 0
    assert "three standard deviations over 4 seeds" in text
    assert f"tolerance {0.52 - 3 * statistics.stdev([0.5, 0.51, 0.52, 0.53]):.2%} to" in text
    with pytest.raises(UserError, match="did you mean seed-2"):
        verify("sed-2")


@pytest.mark.long
def test_versions_of_another_lock(quick, verify):
    """The versions of the commit are shown before the rerun, and as a reason for differences."""
    (quick.path / "requirements.lock").write_text("numpy==1.0 ; python_version < '3'\nnumpy==1.1\n")
    quick.commit()
    code, out, err = verify(NOISE="train")
    assert f"note: numpy {np.__version__} is installed, requirements.lock of the commit has" in err
    assert f"numpy {np.__version__} instead of 1.0 or 1.1" in " ".join(out.split())
    assert code == 0, "within the tolerance"


def test_nothing_leads_out_of_the_clone(monkeypatch):
    """The stages in the clone see no variable of DVC or Git, and no PYTHONPATH."""
    for name in ("DVC_ROOT", "DVC_STAGE", "GIT_DIR", "GIT_WORK_TREE", "PYTHONPATH"):
        monkeypatch.setenv(name, "elsewhere")
    assert "elsewhere" not in rerun.environment().values()


@pytest.mark.long
def test_digits(reproduced):
    """The real pipeline, killed after the first epoch of its training, resumes, and L1 holds."""
    command = [sys.executable, "-m", "tools.verify"]
    environment = reproduced.environment()
    with subprocess.Popen(
        command, cwd=reproduced.path, env=environment, stderr=subprocess.PIPE, text=True
    ) as started:
        assert any("epoch 1/" in line for line in started.stderr)
        reproduced.end()
    done = reproduced.run("python", "-m", "tools.verify")
    assert "preprocess: done before the interruption" in done.stderr
    assert "epoch 1/" not in done.stderr, "the training resumes after its last epoch"
    assert "L1 held: every output is byte-identical." in done.stdout
    assert reproduced.run("git", "status", "--porcelain").stdout == ""


@pytest.mark.long
def test_digits_with_other_threads(reproduced):
    """A result of two threads is reproduced on one core: the report names the threads."""
    if len(getattr(os, "sched_getaffinity", lambda _: [])(0)) < 2:
        pytest.skip("one core, or a system that does not bind processes to cores")
    reproduced.run("dvc", "exp", "run", "--name", "two", "-S", "train.threads=0")
    core = str(min(os.sched_getaffinity(0)))
    done = reproduced.run("taskset", "-c", core, "python", "-m", "tools.verify", "two", ok=False)
    threads = len(os.sched_getaffinity(0))
    assert f"environment differs (threads 1 instead of {threads}" in " ".join(done.stdout.split())
    assert "models/model.safetensors     differs" in done.stdout
