"""Imports go one way: this table is the design's, and the walk over the syntax trees holds every file to it."""

import ast
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "timewarp"

BASE = {"units", "forcefield", "state", "kernel"}
RUN = {"atomic", "claim", "dcd", "snapshot", "output", "settings", "resources"}
ALL = {"*"}
MAY_IMPORT: dict[str, set[str]] = {
    "__init__": {"forcefield", "kernel", "late", "state"},
    # what everybody stands on
    "units": set(),
    "forcefield": {"units"},
    "state": {"units", "forcefield"},
    "kernel": {"units", "forcefield", "state"},
    "ahead": set(),
    "late": set(),
    "machine": set(),
    # the parts, which do not know one another
    "flow": BASE | {"ahead", "machine"},
    "energy": BASE | {"ahead", "machine"},
    "mcmc": BASE,
    "md": BASE | {"atomic", "late", "snapshot"},
    "analysis": BASE | {"dcd"},
    "training": set(),
    # the run directory and what a user asks for
    "atomic": set(),
    "dcd": set(),
    "snapshot": set(),
    "claim": set(),
    "output": {"atomic", "claim", "dcd", "snapshot"},
    "settings": set(),
    "resources": set(),
    "interrupt": set(),
    "loading": set(),
    "summary": {"settings"},
    "failure": {"claim", "md", "resources", "settings", "training"},
    "inventory": {"md", "resources"},
    # where they meet
    "assemble": BASE | RUN | {"ahead", "flow", "energy", "mcmc", "md", "analysis", "training", "interrupt"},
    "bench": ALL - {"cli"},
    "cli": ALL,
    "watch": ALL - {"cli"},
}
# what one file may import beyond its part, and why
BESIDES: dict[str, set[str]] = {
    # somebody's own Simulation is handed to timewarp.md, and the flow's kernel for it is assembled when it is
    "md/gluing.py": {"assemble"},
}
ONLY_IN = {
    "openmm": {"md"},
    "pdbfixer": {"md"},
    "openmmtools": {"md"},
    "simtk": set(),
    "mdtraj": {"md", "analysis", "assemble", "bench"},
    "numba": {"machine"},
    "triton": {"energy", "flow"},
    "typer": {"cli", "failure"},
    "rich": {"watch"},
    "matplotlib": {"analysis", "assemble", "bench"},
}
WITH_TORCH = {"triton"}  # comes with torch for CUDA on Linux; loaded where it is found
BARRED = {"bench": {"cli"}}


def imports(tree: ast.AST, module: list[str], is_package: bool) -> Iterator[tuple[int, str]]:
    """Every module that the tree names in an import, absolute, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            anchor = module if is_package else module[:-1]
            start = anchor[: len(anchor) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                yield node.lineno, str(node.args[0].value)


def violations(package: Path) -> list[str]:
    """What breaks the table, as FILE:LINE and a sentence."""
    found = []
    for file in sorted(package.rglob("*.py")):
        where = file.relative_to(package).with_suffix("")
        unit = where.parts[0]
        at = f"{file.relative_to(package)}"
        if unit not in MAY_IMPORT:
            found.append(f"{at}:1 {unit} is not in the table of tests/test_imports.py; add it with what it may import")
            continue
        is_package = where.name == "__init__"
        module = ["timewarp", *(where.parts[:-1] if is_package else where.parts)]
        tree = ast.parse(file.read_text())
        for line, name in imports(tree, module, is_package):
            top, *rest = name.split(".")
            if top == "timewarp" and rest and rest[0] not in {unit} | MAY_IMPORT[unit] | BESIDES.get(at, set()):
                names_all = MAY_IMPORT[unit] == ALL and rest[0] in MAY_IMPORT.keys() - BARRED.get(unit, set())
                public = unit == "cli" and rest[0] == "__version__"
                if not names_all and not public:
                    found.append(f"{at}:{line} {unit} imports {rest[0]}")
            if top in ONLY_IN and unit not in ONLY_IN[top]:
                found.append(f"{at}:{line} {unit} imports {top}")
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id == "print" and unit != "cli":
                found.append(f"{at}:{node.lineno} {unit} prints")
    return found


def test_the_package_keeps_to_the_table():
    assert violations(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "code", "complaint"),
    [
        ("flow/model.py", "from timewarp.energy import Potential", "flow/model.py:1 flow imports energy"),
        ("flow/model.py", "from ..energy import Potential", "flow/model.py:1 flow imports energy"),
        ("flow/__init__.py", "from .. import energy", "flow/__init__.py:1 flow imports energy"),
        ("energy/a/b.py", "import timewarp.md.system", "energy/a/b.py:1 energy imports md"),
        ("mcmc/chain.py", "def f():\n    from timewarp import flow", "mcmc/chain.py:2 mcmc imports flow"),
        (
            "md/energy.py",
            "import importlib\nimportlib.import_module('timewarp.mcmc')",
            "md/energy.py:2 md imports mcmc",
        ),
        ("kernel.py", "if TYPE_CHECKING:\n    from timewarp.flow import Flow", "kernel.py:2 kernel imports flow"),
        ("units.py", "from timewarp.state import State", "units.py:1 units imports state"),
        ("training/fit.py", "from timewarp.units import kT", "training/fit.py:1 training imports units"),
        ("energy/potential.py", "import openmm.app", "energy/potential.py:1 energy imports openmm"),
        ("assemble.py", "from openmm import app", "assemble.py:1 assemble imports openmm"),
        ("analysis/page.py", "from pdbfixer import PDBFixer", "analysis/page.py:1 analysis imports pdbfixer"),
        ("energy/pairs.py", "import mdtraj", "energy/pairs.py:1 energy imports mdtraj"),
        ("bench.py", "from timewarp import cli", "bench.py:1 bench imports cli"),
        ("assemble.py", "from timewarp.cli import app", "assemble.py:1 assemble imports cli"),
        ("assemble.py", "print('done')", "assemble.py:1 assemble prints"),
        ("md/sampler.py", "from timewarp.assemble import sample", "md/sampler.py:1 md imports assemble"),
        ("flow/model.py", "debug = print", "flow/model.py:1 flow prints"),
        ("helpers.py", "", "helpers.py:1 helpers is not in the table"),
    ],
)
def test_a_wrong_import_is_found(tmp_path, file, code, complaint):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code)
    (found,) = violations(tmp_path)
    assert found.startswith(complaint)


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("flow/model.py", "from timewarp.flow.chart import Chart\nfrom . import data\nfrom ..kernel import run"),
        ("md/system.py", "import openmm\nfrom pdbfixer import PDBFixer\nfrom timewarp.units import kT"),
        ("cli.py", "from timewarp import assemble\nimport timewarp.md.system\nprint('done')"),
        ("bench.py", "from timewarp.assemble import sample\nfrom timewarp.flow import model"),
    ],
)
def test_a_right_import_is_not(tmp_path, file, code):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code)
    assert violations(tmp_path) == []


def undeclared(folder: Path, declared: set[str]) -> set[str]:
    """Top-level modules that the files import and no declared distribution brings."""
    brought = packages_distributions()
    named = set()
    for file in folder.rglob("*.py"):
        named |= {name.split(".")[0] for _, name in imports(ast.parse(file.read_text()), ["timewarp", "x", "y"], False)}
    own = sys.stdlib_module_names | {"timewarp"} | WITH_TORCH | {path.stem for path in folder.rglob("*.py")}
    return {name for name in named - own if not {d.lower() for d in brought.get(name, [])} & declared}


def requirements(*extras: str) -> set[str]:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + [line for e in extras for line in project["optional-dependencies"][e]]
    return {re.split(r"[<>=]", line)[0].lower() for line in lines}


def test_everything_imported_is_declared():
    """A package that happens to be installed here is not there on a fresh machine."""
    assert undeclared(PACKAGE, requirements("openmmtools", "cluster")) == set()
    own = {path.name for path in (PACKAGE.parent / "tests").iterdir() if path.is_dir()}
    assert undeclared(PACKAGE.parent / "tests", requirements("test")) - own == set()


def test_something_imported_and_not_declared_is_found():
    assert undeclared(PACKAGE, requirements("openmmtools", "cluster") - {"openmm"}) == {"openmm"}


def test_what_an_extra_brings_is_imported_by_one_file():
    """Everybody else does without openmmtools: timewarp.md loads that file when its name is asked for."""
    assert undeclared(PACKAGE, requirements("cluster")) == {"openmmtools"}
    naming = [
        file.name
        for file in PACKAGE.rglob("*.py")
        if "import openmmtools" in (t := file.read_text()) or "from openmmtools" in t
    ]
    assert naming == ["mcmc_move.py"]


def interpreter(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)


def test_training_and_the_torch_energy_work_where_openmm_and_mdtraj_are_not_installed():
    done = interpreter("""
        import importlib, pkgutil, sys
        for name in ("openmm", "openmmtools", "pdbfixer", "mdtraj"):
            sys.modules[name] = None  # an import of it raises ImportError
        import timewarp
        for part in ("flow", "energy", "mcmc", "training", "kernel", "output", "settings"):
            module = importlib.import_module(f"timewarp.{part}")
            for found in pkgutil.iter_modules(getattr(module, "__path__", [])):
                importlib.import_module(f"timewarp.{part}.{found.name}")
    """)
    assert done.returncode == 0, done.stderr


def test_the_command_line_loads_nothing_heavy_until_a_command_runs():
    done = interpreter("""
        import sys, timewarp.cli
        heavy = {"openmm", "pdbfixer", "mdtraj", "scipy", "nflows", "matplotlib", "rich.progress"}
        sys.exit(", ".join(sorted(heavy & sys.modules.keys())) or 0)
    """)
    assert (done.returncode, done.stderr.strip()) == (0, "")


@pytest.mark.parametrize(("set_before", "found"), [({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active")])
def test_threads_that_wait_leave_their_core_unless_the_user_says_otherwise(set_before, found):
    """Spinning, two threads on a machine that others use too were found to be a hundred times slower than one."""
    rest = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    code = "import sys; assert 'torch' not in sys.modules; import timewarp, os; print(os.environ['OMP_WAIT_POLICY'])"
    said = subprocess.run([sys.executable, "-c", code], env=rest | set_before, capture_output=True, text=True)
    assert said.stdout.split() == [found], said.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--help"], ""),
        (["sample", "--help"], ""),
        (["smaple"], "timewarp: No such command 'smaple'. Did you mean 'sample'?"),
        (["sample", "here.pdb"], "timewarp: Missing option '--out'."),
        (["sample", "here.pdb", "--out", "run", "--temperature", "0"], "timewarp: --temperature: expected a positive"),
        (["sample", "nowhere.pdb", "--out", "run"], "timewarp: nowhere.pdb: expected a file, found none of this name"),
    ],
)
def test_who_asks_for_help_or_mistypes_does_not_wait_for_torch(words, said, tmp_path):
    code = (
        "import sys\nfrom timewarp.cli import execute\nstatus = execute(sys.argv[1:])\n"
        "assert not {'torch', 'mdtraj', 'scipy'} & set(sys.modules)\nsys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == (2 if said else 0), done.stderr
    assert done.stderr.startswith(said)
    assert bool(done.stderr) == bool(said)


def test_every_public_name_is_there_whatever_was_loaded_before():
    code = (
        "import timewarp.md.system, timewarp, timewarp.md as md\n"
        "later = {'TimewarpMove', 'TimewarpReplicaExchangeSampler'}\n"
        "found = [getattr(m, n) for m in (timewarp, md) for n in m.__all__ if n not in later]\n"
        "import types\nassert not any(isinstance(f, types.ModuleType) for f in found)\n"
        "assert {*timewarp.__all__} <= {*dir(timewarp)} and {*md.__all__} <= {*dir(md)}\n"
        "try: timewarp.nothing\nexcept AttributeError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "module 'timewarp' has no attribute 'nothing'\n"), done.stderr
