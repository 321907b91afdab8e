"""The pages of the repository: links lead somewhere, flags exist, generated parts are up to date."""

from __future__ import annotations

import dataclasses
import importlib
import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from test_structure import FLOORS
from write_readme import page as written_page

import seedtf.errors
from seedtf.commands.benchmark import KINDS
from seedtf.commands.main import COMMANDS
from seedtf.config.train_config import TrainConfig

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = {".git", "build", "dist", "runs", "node_modules"}
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part in SKIPPED or part.startswith(".") for part in path.relative_to(ROOT).parts)
)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))

FLAGS_OF_OTHER_PROGRAMS = {
    "editable": "pip",
    "logdir": "tensorboard",
    "rm": "docker",
    "callers": "scripts/benchmark_serving_peers.py",
    "kinds": "scripts/benchmark_serving_peers.py",
    "network": "scripts/benchmark_serving_peers.py",
    "python": "scripts/benchmark_race.py, benchmark_peers.py and benchmark_serving_peers.py",
    "rounds": "scripts/benchmark_peers.py, benchmark_serving_peers.py and benchmark_torch_step.py",
    "seconds": "scripts/benchmark_peers.py and benchmark_serving_peers.py",
    "setting": "scripts/benchmark_race.py",
    "timm_script": "scripts/benchmark_race.py",
    "without_avx512": "scripts/benchmark_peers.py",
    "xla_cpu_prefer_vector_width": "XLA",
    "out_dir": "a former name, in the changelog",
    "tune_dir": "a former name, in the changelog",
}
LINK = re.compile(r"(?:\]\(|src=\")([^)\s\"]+)")
FLAG = re.compile(r"(?<![\w-])--([a-z]\w*)")


def without_code(text: str) -> str:
    """The text of a page without its code blocks and code spans."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ +(.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def flags_of(module_name: str, *more: type) -> set[str]:
    """The flags of a command, without the leading ``--``.

    They are ``help``, ``flagfile``, and the name and the alias of each field of the dataclasses in the
    command's module and in ``more``. A field of type bool also has a flag with ``no`` before its name.
    """
    module = importlib.import_module(module_name)
    classes = [
        value
        for value in vars(module).values()
        if dataclasses.is_dataclass(value) and value.__module__ == module_name
    ]
    names = {"help", "flagfile"}
    for field in (field for each in (*classes, *more) for field in dataclasses.fields(each)):
        names |= {field.name, field.metadata.get("alias", "")}
        if field.type in (bool, "bool"):
            names.add(f"no{field.name}")
    return names


FLAGS = {
    command: flags_of(
        f"seedtf.commands.{command}", *([TrainConfig] if command in ("train", "folds") else [])
    )
    for command in COMMANDS
} | {f"benchmark {kind}": flags_of(f"seedtf.commands.benchmark_{kind}") for kind in KINDS}
COMMAND = re.compile(r"\bseedtf ((?:benchmark )?[a-z_]+)\b([^\n`#|]*)")


@each_page
def test_every_relative_link_and_anchor_exists(page: Path) -> None:
    wrong = []
    text = page.read_text(encoding="utf-8")
    for target in LINK.findall(without_code(text)):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = unquote(target).partition("#")
        file = page.parent / name if name else page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text("utf-8"))):
            wrong.append(target)
    assert wrong == []


@each_page
def test_every_flag_exists(page: Path) -> None:
    known = set().union(*FLAGS.values(), FLAGS_OF_OTHER_PROGRAMS)
    named = set(FLAG.findall(page.read_text(encoding="utf-8")))
    assert named - known == set()


@each_page
def test_every_command_has_the_flags_that_it_is_shown_with(page: Path) -> None:
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    wrong = [
        f"seedtf {command} --{flag}"
        for command, rest in COMMAND.findall(text)
        if command in FLAGS
        for flag in FLAG.findall(rest)
        if flag not in FLAGS[command] | {"json"} | FLAGS_OF_OTHER_PROGRAMS.keys()
    ]
    assert wrong == []


@each_page
def test_every_named_source_file_and_test_exists(page: Path) -> None:
    spans = re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))
    files = {span for span in spans if re.fullmatch(r"[\w/]+\.(py|sh|jinja)", span)}
    folders = (ROOT, ROOT / "seedtf", ROOT / "seedtf" / "training", page.parent, ROOT / "tests")
    assert {name for name in files if not any((each / name).exists() for each in folders)} == set()
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    tests = {span for span in spans if re.fullmatch(r"test_\w+", span)}
    assert {name for name in tests if f"def {name}(" not in sources} == set()


def test_the_page_of_the_tests_is_up_to_date() -> None:
    page = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
    assert page == written_page(), "run: make promises"


def test_the_map_shows_the_floors_that_test_structure_checks() -> None:
    text = (ROOT / "seedtf" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (`.*`) \|$", text, re.M)
    shown = {int(number): tuple(re.findall(r"`(\w+)`", names)) for number, names in rows}
    assert shown == dict(enumerate(FLOORS, 1))


def test_every_folder_of_the_package_is_on_the_map() -> None:
    text = (ROOT / "seedtf" / "README.md").read_text(encoding="utf-8")
    folders = {path.parent.name for path in (ROOT / "seedtf").glob("*/__init__.py")}
    assert {name for name in folders if f"| `{name}/` |" not in text} == set()


@pytest.mark.parametrize(("name", "limit"), [("README.md", 170), ("BUILD.md", 130)])
def test_the_front_pages_are_short(name: str, limit: int) -> None:
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= limit


def test_every_command_and_make_target_is_described() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {command for command in COMMANDS if f"`seedtf {command}`" not in readme} == set()
    build = (ROOT / "BUILD.md").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text("utf-8"), re.M)[1]
    internal = {"browser", "addons-tests"}  # only other targets call these targets
    assert {name for name in targets.split() if f"`make {name}`" not in build} == internal


def test_every_exit_code_is_in_the_table() -> None:
    text = (ROOT / "seedtf" / "training" / "README.md").read_text(encoding="utf-8")
    table = text.partition("## Exit codes\n")[2].partition("\n## ")[0]
    constants = {
        value
        for command in ("main", *COMMANDS)
        for name, value in vars(importlib.import_module(f"seedtf.commands.{command}")).items()
        if name.startswith("EXIT_")
    }
    errors = {getattr(error, "exit_code", 0) for error in vars(seedtf.errors).values()}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.M)} == constants | errors


def test_the_version_of_the_changelog_is_that_of_the_package() -> None:
    changes = (ROOT / "seedtf" / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {seedtf.__version__}" in changes
