"""The structure of the package: the order of imports, the length of files, and private names.

Each module has a floor and imports from no higher floor. Private names of libraries are used only in
compat/.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "seedtf"
SOURCES = sorted(PACKAGE.rglob("*.py"))

# The sub-packages and modules of seedtf by floor, the lowest first. A module may import from its own
# floor and from lower ones.
FLOORS = (
    ("errors", "files", "intervals", "report"),
    ("compat", "seeds"),
    ("images",),
    ("augment", "model"),
    ("data",),
    ("plots",),
    ("config",),
    ("runs",),
    ("training",),
    ("callbacks", "datasets", "evaluation"),
    ("explore", "folds"),
    ("export", "probing"),
    ("tuning",),
    ("benchmark",),
    ("commands",),
)
FLOOR_OF = {folder: number for number, folders in enumerate(FLOORS) for folder in folders}

MAX_LINES, MIN_LINES = 350, 40
SHORT_FILES = {
    "__main__.py": "the entry point of `python -m seedtf`",
    "compat/optuna.py": "the one private name of Optuna",
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


@cache
def parse(path: Path) -> ast.Module:
    """The syntax tree of a file; each is parsed once for all tests of this module."""
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module", autouse=True)
def _forget_trees() -> Iterator[None]:
    yield
    parse.cache_clear()


@cache
def imported(path: Path) -> set[str]:
    """The modules of the package that a file imports, at module level or inside a function."""
    found: set[str] = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (whole & MODULES.keys()) or {node.module}
    return {name for name in found if name in MODULES}


def top_folder(module: str) -> str:
    """The sub-package of ``seedtf`` that a module is in, or the module itself; empty for ``seedtf``."""
    return module.split(".")[1] if "." in module else ""


def test_every_sub_package_has_a_floor():
    folders = {top_folder(name) for name in MODULES} - {"", "__main__"}
    assert folders == FLOOR_OF.keys()


def test_no_module_imports_from_a_higher_floor():
    upward = [
        f"{name} imports {other}"
        for name, path in MODULES.items()
        for other in imported(path)
        if top_folder(name) in FLOOR_OF and top_folder(other) in FLOOR_OF
        if FLOOR_OF[top_folder(other)] > FLOOR_OF[top_folder(name)]
    ]
    assert upward == []


def test_there_is_no_import_cycle():
    imports = {name: imported(path) - {name} for name, path in MODULES.items()}
    # The package itself imports its public modules for type checkers only; test_public_names.py checks
    # that importing the package imports none of them.
    imports["seedtf"] = set()
    done: set[str] = set()

    def visit(name: str, chain: tuple[str, ...]) -> None:
        assert name not in chain, " -> ".join((*chain[chain.index(name) :], name))
        if name not in done:
            for other in imports[name]:
                visit(other, (*chain, name))
            done.add(name)

    for name in imports:
        visit(name, ())


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_length_of_a_file_is_within_limits(path):
    name, lines = str(path.relative_to(PACKAGE)), len(path.read_text().splitlines())
    assert lines <= MAX_LINES
    if path.name != "__init__.py" and name not in SHORT_FILES:
        assert lines >= MIN_LINES


def test_every_module_with_a_progress_bar_calls_is_silent():
    texts = {name: path.read_text(encoding="utf-8") for name, path in MODULES.items()}
    modules_with_bar = {name for name, text in texts.items() if "from tqdm import" in text}
    assert {name for name in modules_with_bar if "is_silent()" not in texts[name]} == set()
    assert len(modules_with_bar) > 5


RUN_FILES = re.compile(
    r"""["'](?:[\w.{}-]*/)*(?:config\.json|flags\.txt|env\.json|classes\.txt|split\.csv|data_report\.csv|"""
    r"""history\.csv|timing\.csv|curves\.png|lr\.png|live\.html|augmented\.png|best\.keras|last\.keras|"""
    r"""predictions_val\.csv|parity\.json|report\.json)["']"""
)

NOT_OF_A_RUN = {
    "model/archive.py: config.json": "a member of Keras's .keras archives",
    "model/presets.py: config.json": "a file of KerasHub's presets",
    "model/downloads.py: config.json": "a file of KerasHub's presets",
}


def code_strings(path: Path) -> list[str]:
    """The string literals of a file, without docstrings."""
    tree = parse(path)
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
    ]


def test_only_the_package_runs_has_the_file_names_of_a_run_folder():
    elsewhere = [
        f"{path.relative_to(PACKAGE)}: {text}"
        for path in SOURCES
        if path.parent.name != "runs"
        for text in code_strings(path)
        if RUN_FILES.fullmatch(repr(text))
    ]
    assert [place for place in elsewhere if place not in NOT_OF_A_RUN] == []


def test_only_report_py_calls_print():
    printing = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in SOURCES
        if path.name != "report.py" or path.parent != PACKAGE
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
    ]
    assert printing == []


# Private names of a library may be used only in compat/, where each public function or class states the
# versions with which it was tried.

DOCUMENTED = {
    "os._exit": "Python documents it",
}
PRIVATE_MODULES = re.compile(r"tensorflow\.python|keras\.src|optuna\._\w+")


def is_private(name: object) -> bool:
    return isinstance(name, str) and bool(re.fullmatch(r"_[a-zA-Z]\w*", name))


def own_names(tree: ast.Module) -> set[str]:
    """The names that a module defines: functions, classes, variables, and attributes it assigns to."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
    return names


def private_uses(path: Path) -> list[str]:
    """The private names of libraries that a module uses, each with its line."""
    tree = parse(path)
    own, uses = own_names(tree), []
    for node in ast.walk(tree):
        text = ""
        if isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            text = f"{owner}.{node.attr}"
            is_assigned = node.attr in ("__class__", "__name__") and isinstance(node.ctx, ast.Store)
            is_of_a_library = is_private(node.attr) and (
                owner not in ("self", "cls", "super()") or node.attr not in own
            )
            if text in DOCUMENTED or not (is_assigned or is_of_a_library):
                text = ""
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "getattr",
            "setattr",
            "hasattr",
        ):
            name = node.args[1]
            if isinstance(name, ast.Constant) and is_private(name.value):
                text = ast.unparse(node)
        elif isinstance(node, ast.Import):
            text = ", ".join(a.name for a in node.names if PRIVATE_MODULES.match(a.name))
        elif isinstance(node, ast.ImportFrom) and PRIVATE_MODULES.match(node.module or ""):
            text = node.module or ""
        if text:
            uses.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {text}")
    return uses


def test_only_compat_uses_private_names_of_libraries():
    uses = [use for path in SOURCES if path.parent.name != "compat" for use in private_uses(path)]
    assert uses == []


def test_no_private_hook_of_a_library_is_overridden_outside_compat():
    """A private method that its module never calls can only be one that a library calls."""
    hooks = []
    for path in SOURCES:
        tree = parse(path)
        called = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        hooks += [
            f"{path.relative_to(PACKAGE)}:{method.lineno} {method.name}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef) and path.parent.name != "compat"
            for method in node.body
            if isinstance(method, ast.FunctionDef)
            and is_private(method.name)
            and method.name not in called
            and method.name != "_repr_html_"  # a documented name of IPython
        ]
    assert hooks == []


@cache
def modules_and_names_of_tests() -> set[str]:
    """``tests/test_x.py`` for every module of tests, and the name of every test function."""
    tests = sorted((ROOT / "tests").glob("test_*.py"))
    return {f"tests/{test.name}" for test in tests} | {
        name for test in tests for name in re.findall(r"def (test_\w+)", test.read_text())
    }


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "compat").glob("[a-z]*.py")), ids=lambda p: p.stem
)
def test_each_function_of_compat_states_versions_and_its_test(path):
    known = modules_and_names_of_tests()
    for node in parse(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not is_private(node.name):
            text = ast.get_docstring(node) or ""
            assert re.search(r"Tried with [A-Z]\w+ \d", text), node.name
            named = re.findall(r"``((?:tests/)?test_\w+(?:\.py)?)``", text)
            assert named or "the only version that needs it" in text, f"{node.name} names no test"
            assert set(named) <= known, node.name
