"""The house rules of docs/design.md, checked in the source files and in what the stages open."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
PIPELINE = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())
STAGES = PIPELINE["stages"]
MODEL = "cifar/models/${train.model}.py"
SOURCES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text())
    for folder in sorted(ROOT.iterdir())
    if folder.name[0] != "." and folder.name not in ("tests", "runs")  # runs: ignored by Git
    for path in sorted(folder.rglob("*.py"))
}
NETWORKS = [file for file in SOURCES if file.startswith("cifar/models/")]
LIBRARY = [file for file in SOURCES if file.startswith("cifar/")]
# These modules read a stage's inputs only to detect changes.
GUARDS = ("cifar/pipeline.py", "cifar/training/provenance.py")
PUBLIC = "cifar/use.py"  # what `cifar.load_model` returns
VAGUE = frozenset(
    [
        *("every", "few", "found", "now", "own", "place", "places", "same", "sides", "whole"),
        *("facts", "insist", "made_by", "said", "shown", "sure", "together", "told"),
    ]
)
STATE = (".checkpoints", ".downloads", "runs")  # ignored by Git, outside the pipeline


def nodes(file, kind):
    return [node for node in ast.walk(SOURCES[file]) if isinstance(node, kind)]


def calls(file):
    """(dotted name of what is called, its keywords, line) of every call."""
    return [
        (
            ast.unparse(node.func),
            {word.arg: ast.unparse(word.value) for word in node.keywords},
            node.lineno,
        )
        for node in nodes(file, ast.Call)
    ]


def imported(file):
    """Every module that the file imports, anywhere in it; also `a.b` for `from a import b`."""
    names = {alias.name for node in nodes(file, ast.Import) for alias in node.names}
    for node in nodes(file, ast.ImportFrom):
        assert node.level == 0, f"{file}:{node.lineno}: a relative import"
        names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def project_files(file):
    """The project's files that importing `file` loads, including itself."""
    found, left = set(), {file}
    while left:
        file = left.pop()
        found.add(file)
        for name in imported(file):
            parts = name.split(".")
            for end in range(1, len(parts) + 1):
                stem = "/".join(parts[:end])
                left |= {f"{stem}.py", f"{stem}/__init__.py"} & SOURCES.keys()
        left -= found
    return found


def direct_imports(file):
    """The files of the project that `file` itself imports."""
    stems = [name.replace(".", "/") for name in imported(file)]
    parents = [stem.rpartition("/")[0] for stem in stems]
    return {f"{stem}.py" for stem in [*stems, *parents]} & SOURCES.keys()


def wing(file):
    """The folder of cifar/ that contains the file; empty for a module that all wings may use."""
    parts = file.split("/")
    return parts[1] if len(parts) > 2 and parts[1] != "params" else ""


def script(stage):
    return f"stages/{stage}.py"


def paths(stage, *kinds):
    """The paths under these keys of a stage, without their options."""
    entries = [entry for kind in kinds for entry in STAGES[stage].get(kind, [])]
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def within(path, folders):
    return any(Path(path).is_relative_to(folder) for folder in folders)


def writer(path):
    """The stage that writes a path; None for a file of the repository."""
    return next((s for s in STAGES if within(path, paths(s, "outs", "metrics", "plots"))), None)


def ancestors(stage):
    before = {writer(path) for path in paths(stage, "deps")} - {None}
    return before.union(*map(ancestors, before)) if before else set()


def offences(bad):
    """file:line of every call for which bad(name, keywords) holds."""
    return [
        f"{file}:{line}: {name}"
        for file in SOURCES
        for name, words, line in calls(file)
        if bad(name, words)
    ]


@pytest.mark.parametrize("stage", STAGES)
def test_dependencies_are_the_imports(stage):
    """A stage's Python dependencies are the files that its script imports, and its network."""
    needed = project_files(script(stage))
    if "cifar/networks.py" in needed:
        needed = (needed | set().union(*map(project_files, NETWORKS))) - set(NETWORKS) | {MODEL}
    declared = [path for path in paths(stage, "deps") if path.endswith(".py")]
    assert sorted(declared) == sorted(needed)
    assert STAGES[stage]["cmd"] == f"python -m stages.{stage}"


@pytest.mark.parametrize("stage", STAGES)
def test_parameters_are_the_sections_read(stage):
    """A stage's params are the section that it loads, and the seed if it uses it."""
    read = set()
    for node in nodes(script(stage), ast.Assign):
        if isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "params.load":
            read.add(ast.unparse(node.value.args[0]).lower())
            section, seed = node.targets[0].elts
            assert section.id != "_"
            read |= {"seed"} - ({"seed"} if seed.id == "_" else set())
    assert read == set(STAGES[stage]["params"])


def test_imports_run_downwards():
    """The library imports neither programs nor modules of other wings, and imports form no cycle.

    A wing may use the modules beside the wings, which use no wing. The module of the public call
    may use any wing, and no file of the library imports it.
    """
    for file in LIBRARY:
        for other in direct_imports(file):
            assert other.startswith("cifar/") and other != PUBLIC, f"{file} imports {other}"
            if file != PUBLIC:
                assert wing(other) in ("", wing(file)), f"{file} imports {other}"
        assert file not in set().union(*map(project_files, direct_imports(file) - {file})), file


def test_nobody_imports_a_program():
    """No file imports a program of another folder; three modules import by name.

    These three import the networks, the sections of params.yaml, and the public call.
    """
    for file in SOURCES:
        programs = {"stages", "recipes", "tools"} - {file.split("/")[0]}
        assert not [name for name in imported(file) if name.split(".")[0] in programs], file
    dynamic = offences(
        lambda name, _: name.endswith("import_module") or name in ("__import__", "runpy.run_path")
    )
    library = {line.split(":")[0] for line in dynamic if line.startswith(("cifar/", "stages/"))}
    assert library == {"cifar/__init__.py", "cifar/networks.py", "cifar/params/__init__.py"}


def test_training_cannot_see_the_test_images():
    """No dependency of train contains, or depends on, test images, raw images or test results."""
    hidden = ["data/fetched", "data/processed/test", "metrics/test.json"]
    for path in paths("train", "deps"):
        assert not within(path, hidden) and not within("data/processed/test", [path]), path
    assert writer("metrics/test.json") not in {"train", None} | ancestors("train")
    assert ancestors("train") == {"fetch", "preprocess"}, "the walk over the graph works"


def reads_of_parameters(file):
    """(key, keyword, function, line) for each `p.KEY`; keyword is None if it is not an argument."""
    words = {}
    for call in nodes(file, ast.Call):
        name = ast.unparse(call.func)
        for argument in call.args:
            words[argument] = ("", name)
        for keyword in call.keywords:
            words[keyword.value] = (keyword.arg, name)
    for node in nodes(file, ast.Attribute):
        if isinstance(node.value, ast.Name) and node.value.id == "p":
            yield node.attr, *words.get(node, (None, "")), node.lineno


LIBRARY_READERS = {  # the files of the library that read a section beside its stage
    "preprocess": ["cifar/data/prepare.py"],
    "train": [f"cifar/training/{name}.py" for name in ("fit", "inspection", "splits")],
}
READERS = [*map(script, STAGES), *(file for files in LIBRARY_READERS.values() for file in files)]
# `train.model` is the name of a network, whereas a Model is a trained one; one function holds out
# either fraction; `dataset` is the name in the record of a data set.
RENAMED = {
    ("model", "network"),
    ("dataset", "name"),
    ("test_fraction", "fraction"),
    ("val_fraction", "fraction"),
}
BUILT_IN = {
    "range",
    "len",
    "round",
    "sum",
    "min",
    "max",
    "print",
    "Path",
    "str",
    "datasets.DATASETS.get",
}


def test_every_parameter_is_read_by_its_name():
    """Each stage reads exactly the keys of its section of params.yaml, as `p.KEY`."""
    values = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    for section in STAGES:
        files = [script(section), *LIBRARY_READERS.get(section, [])]
        read = {key for file in files for key, *_ in reads_of_parameters(file)}
        assert read - {"model_copy", "model_dump"} == set(values[section]), section


@pytest.mark.parametrize("file", READERS)
def test_a_parameter_is_handed_on_under_its_name(file):
    """`p.KEY` as an argument of one of our functions is passed as the keyword KEY."""
    for key, keyword, function, line in reads_of_parameters(file):
        if keyword is not None and function not in BUILT_IN:
            right = keyword == key or (key, keyword) in RENAMED
            assert right, f"{file}:{line}: p.{key} in {function}"


def test_names_say_what_they_hold():
    """No variable, argument, function or class has a name so vague that it fits anything."""
    for file in SOURCES:
        names = [(node.arg, node.lineno) for node in nodes(file, ast.arg)]
        names += [(node.name, node.lineno) for node in nodes(file, ast.FunctionDef | ast.ClassDef)]
        stored = [node for node in nodes(file, ast.Name) if isinstance(node.ctx, ast.Store)]
        names += [(node.id, node.lineno) for node in stored]
        assert not [f"{file}:{line}: {name}" for name, line in names if name.lower() in VAGUE]


def test_nothing_travels_unseen():
    """No code inspects signatures, unpacks parameters with `**`, or replaces an object's class."""
    for file in [*LIBRARY, *map(script, STAGES)]:
        text = (ROOT / file).read_text()
        assert "inspect.signature" not in text and "__class__ =" not in text, file
        for node in nodes(file, ast.Call):
            for keyword in node.keywords:
                unpacked = "" if keyword.arg else ast.unparse(keyword.value)
                assert not re.match(r"(p|params|options)\b", unpacked), f"{file}:{node.lineno}"


def test_a_word_finds_the_life_of_a_parameter():
    """`git grep -w dropout` shows where the parameter is set, checked, recorded and used."""
    command = [
        "git",
        "grep",
        "--untracked",
        "-lw",
        "dropout",
        "--",
        "params.yaml",
        "cifar",
        "stages",
    ]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    walk = {"params.yaml", "cifar/params/train.py", "cifar/training/fit.py", "cifar/model.py"}
    assert set(found.split()) >= walk | {"cifar/models/vgg.py"}


def test_every_module_has_a_test():
    """Each module of the library is imported by a test, and each program has a test of its name.

    Networks are imported by name; tests/test_models.py tests all of them.
    """
    tests = {path: ast.parse(path.read_text()) for path in (ROOT / "tests").rglob("test_*.py")}
    names = {path.stem.removeprefix("test_") for path in tests}
    imports = [node for tree in tests.values() for node in ast.walk(tree)]
    known = {
        f"{node.module}.{alias.name}"
        for node in imports
        if isinstance(node, ast.ImportFrom)
        for alias in [*node.names, ast.alias("")]
    }
    for file in [*LIBRARY, *(f for f in SOURCES if f.startswith(("stages/", "tools/")))]:
        path = Path(file)
        if path.stem != "__init__" and file not in NETWORKS:
            module = ".".join(path.with_suffix("").parts)
            assert path.stem in names or known & {module, f"{module}."}, file


def test_every_program_explains_itself():
    """Every program passes on its docstring, which `--help` prints without starting the program."""
    programs = [f for f in SOURCES if f.startswith(("stages/", "tools/", "recipes/__main__"))]
    assert len(programs) > 15
    for file in programs:
        if file != "tools/install.py":  # make calls it before the environment exists
            assert "__doc__" in {node.id for node in nodes(file, ast.Name)}, file


def walk(heading):
    """The lines of the code block below a heading of docs/design.md, each split into columns."""
    page = (ROOT / "docs/design.md").read_text()
    block = page.partition(f"\n## {heading}\n")[2].split("```\n")[1]
    return [re.split("  +", line) for line in block.splitlines() if not line.startswith(" ")]


def test_the_walk_of_a_parameter_is_true():
    """The code of every step is in the file that docs/design.md names; `…` stands for any text."""
    stops = walk("The life of a parameter")
    assert len(stops) > 7
    for path, code, *_ in stops:
        text = " ".join((ROOT / path).read_text().split())
        assert all(part.strip() in text for part in code.split("…")), (path, code)


@pytest.mark.parametrize("heading", ["The life of an image", "A training, from top to bottom"])
def test_the_walks_name_files_that_exist(heading):
    """Every step of the other walks names a file of the repository."""
    files = [path for path, *_ in walk(heading)]
    assert len(files) > 1 and not [path for path in files if not (ROOT / path).is_file()]


def runs_a_stage(tree):
    return any(ast.unparse(call.func) == "stage.run" for call in ast.walk(tree) if is_call(call))


def is_call(node):
    return isinstance(node, ast.Call)


PROGRAMS = [file for file, tree in SOURCES.items() if runs_a_stage(tree)]


@pytest.mark.parametrize("file", PROGRAMS)
def test_a_program_first_imports_what_reports_errors(file):
    """Every program imports cifar.stage first, before any library."""
    tree = SOURCES[file]
    first = next(node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))
    assert ast.unparse(first) == "from cifar import stage"


def test_nothing_dangerous_is_called():
    """No call can run code from data: no eval, shell, extraction to disk, or unpickling."""
    assert not offences(lambda name, _: name in ("eval", "exec", "compile"))
    assert not offences(
        lambda name, _: name.split(".")[-1] in ("extractall", "extract", "unpack_archive")
    )
    assert not offences(lambda name, words: words.get("shell", "False") != "False")
    assert not offences(
        lambda name, _: name in ("os.system", "os.popen") or name.startswith("os.exec")
    )
    assert not offences(
        lambda name, words: name == "torch.load" and words.get("weights_only") != "True"
    )
    assert not offences(
        lambda name, words: name == "np.load" and words.get("allow_pickle") != "False"
    )
    assert not offences(lambda name, words: words.get("allow_pickle", "False") != "False")
    assert not offences(lambda name, _: name in ("pickle.load", "pickle.loads"))
    for file in SOURCES:
        roots = {name.split(".")[0] for name in imported(file)}
        assert not roots & {"dill", "joblib", "marshal", "shelve"}, file
        assert "pickle" not in roots or file == "cifar/data/records.py", file


def test_yaml_is_read_in_one_place():
    """Only cifar/yaml12.py loads YAML, with a safe loader; only recipes/edit.py uses ruamel."""
    users = {
        package: [f for f in SOURCES if package in {name.split(".")[0] for name in imported(f)}]
        for package in ("yaml", "ruamel")
    }
    assert users == {"yaml": ["cifar/yaml12.py"], "ruamel": ["recipes/edit.py"]}
    loads = [
        ast.unparse(node)
        for node in nodes("cifar/yaml12.py", ast.Call)
        if ast.unparse(node.func).startswith("yaml.load")
    ]
    assert loads == ["yaml.load(text, Loader)"]


def test_torchvision_waits_until_a_network_needs_it():
    """Only networks import torchvision, which takes two seconds, at the top of their file."""
    for file, tree in SOURCES.items():
        tops = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        text = " ".join(ast.unparse(node) for node in tops)
        assert "torchvision" not in text or file.startswith("cifar/models/"), file


def test_no_parameter_enters_a_command():
    """No command of the pipeline contains `${...}`, whose value a shell would interpret."""
    assert STAGES and not [name for name, stage in STAGES.items() if "${" in stage["cmd"]]


def test_results_are_in_git_or_in_the_cache():
    """A metric or plot is either cached by DVC or tracked by Git; all other outputs are cached."""
    for stage in STAGES:
        for kind in ("outs", "metrics", "plots"):
            for entry, path in zip(STAGES[stage].get(kind, []), paths(stage, kind), strict=True):
                options = {} if isinstance(entry, str) else entry[path]
                ignored = subprocess.run(
                    ["git", "check-ignore", "--quiet", "--no-index", path], cwd=ROOT
                )
                assert options.get("cache", True) == (ignored.returncode == 0), path
                assert kind != "outs" or options.get("cache", True), path
                assert not options.get("persist"), f"{path}: DVC's run cache is off with it"


def locked(lock):
    """The version of each requirement in a lock file, all of which are pinned with hashes."""
    text = (ROOT / lock).read_text()
    pins = re.findall(
        r"^(\S+?)(?:\[.*?\])?==(\S+)(?: ;.*?)?(?: \\\n    --hash=sha256:[0-9a-f]{64})+$",
        text,
        re.MULTILINE,
    )
    assert len(pins) == len(re.findall(r"^[a-z]", text, re.MULTILINE)), "a line without hashes"
    assert len(dict(pins)) == len(pins), "one version for all Pythons"
    return dict(pins)


def names(requirements):
    """The names of the requirements, without extras and versions; included groups are skipped."""
    lines = [line for line in requirements if isinstance(line, str)]
    return {re.split(r"[^\w.-]", line)[0].lower().replace(".", "-") for line in lines}


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_file_names_no_address(lock):
    """A lock file contains neither an index nor a URL, so that it works with any mirror."""
    text = (ROOT / lock).read_text()
    assert "://" not in text and "--index" not in text and "--find-links" not in text


def test_the_lock_files_pin_every_requirement():
    """requirements.lock pins all dependencies; requirements-dev.lock also pins all groups."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    user, developer = locked("requirements.lock"), locked("requirements-dev.lock")
    assert "torch" in user and names(settings["project"]["dependencies"]) <= user.keys()
    assert user.items() <= developer.items()
    groups = settings["dependency-groups"]
    assert set().union(*map(names, groups.values())) <= developer.keys()
    assert not names(groups["test"] + groups["lint"]) - {"psutil"} & user.keys()


def test_every_library_that_the_programs_import_is_required():
    """What they import is listed in pyproject.toml, rather than installed by chance."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    requirements = [settings["project"]["dependencies"], *settings["dependency-groups"].values()]
    required = set().union(*map(names, requirements))
    modules = {name.partition(".")[0] for file in SOURCES for name in imported(file)}
    ours = {path.name for path in ROOT.iterdir()}
    packages = packages_distributions()
    for module in modules - sys.stdlib_module_names - ours:
        providers = [package.replace("_", "-") for package in packages[module]]
        assert names(providers) & required, f"{module} is not listed"


def test_stages_open_what_they_declare(first_run):
    """A stage reads exactly its declared dependencies and writes only its declared outputs.

    All stages read all sections of params.yaml, because each stage checks the whole file.
    """
    lock = YAML(typ="safe").load((first_run.project.path / "dvc.lock").read_text())
    empty = {f for f, tree in SOURCES.items() if f.endswith("__init__.py") and len(tree.body) <= 1}
    free = ["params.yaml", "dvc.yaml", "cifar/params", *empty, *STATE]
    for name, stage in lock["stages"].items():
        deps, outs = ([entry["path"] for entry in stage[kind]] for kind in ("deps", "outs"))
        reads, writes = (
            {
                path
                for s, what, path, by in first_run.notes
                if (s, what) == (name, kind) and by not in GUARDS
            }
            for kind in ("read", "write")
        )
        writes = {re.sub(r"(^|/)\.([^/]+)\.tmp$", r"\1\2", path) for path in writes}
        assert not [path for path in sorted(reads) if not within(path, [*deps, *outs, *free])], name
        assert not [path for path in sorted(writes) if not within(path, [*outs, *STATE])], name
        loaded = {path for s, what, path, _ in first_run.notes if (s, what) == (name, "read")}
        assert not [path for path in deps if not any(within(read, [path]) for read in loaded)], name


def test_data_stages_do_without_torch(first_run):
    """fetch, preprocess and plot never import torch, because that takes longer than their work."""
    importing = {
        stage for stage, what, name, _ in first_run.notes if (what, name) == ("import", "torch")
    }
    assert importing == {"train", "evaluate"}
