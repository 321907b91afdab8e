"""Any command line on any small folder ends with a result or with one line, never with a traceback.

The library Hypothesis draws the command lines. Some of their flags and values are wrong, and some of
the folders, tables and archives that they name are damaged. The commands run in this process. They
check their flags and list the images as in a real run, and end where they would need TensorFlow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import json
import re
import sys
import types
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedtf.commands.benchmark import KINDS
from seedtf.commands.main import COMMANDS, main
from seedtf.config.flags import Flags, flag_kind
from seedtf.config.train_config import TrainConfig
from seedtf.data.archives import unpack_archive
from seedtf.data.columns import Columns
from seedtf.data.listing import list_files, list_for_check, list_known_classes
from seedtf.runs.folder import find_run, read_class_names, read_settings
from seedtf.runs.saved_config import load_resumed
from seedtf.training.machine import Machine
from seedtf.training.resolve import resolve


def config_of(command: str) -> type:
    """The class of a command's flags: the one in the module of the command, or that of train."""
    module = importlib.import_module(f"seedtf.commands.{command}")
    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Flags)
        if value.__module__ == module.__name__
    ]
    return classes[0] if classes else TrainConfig


CONFIGS = {command: config_of(command) for command in COMMANDS}
FOLDERS = {
    "plain": ("oak/1.jpg", "oak/2.jpg", "elm/3.png", "elm/4.PNG", "elm/notes.txt"),
    "split": (
        "train/oak/1.jpg",
        "train/elm/2.jpg",
        "val/oak/3.jpg",
        "val/elm/4.jpg",
        "test/oak/5.jpg",
    ),
    "flat": ("oak.1.jpg", "oak.2.jpg", "elm.1.jpg", "elm.2.jpg"),
    "one": ("oak/1.jpg",),
    "empty": (),
    "wrapped": ("a/b/oak/1.jpg", "a/b/oak/2.jpg", "a/b/elm/3.jpg", "a/b/elm/4.jpg"),
    "both": ("train/1.jpg", "training/2.jpg", "bus/3.jpg"),
    "hf": ("1.jpg", "2.jpg", "3.jpg", "4.jpg"),
    "run": (),
}
ROWS = "1.jpg,oak\n2.jpg,oak\n3.jpg,elm\n4.jpg,elm\n"
FILES = {
    "hf/metadata.csv": f"file_name,label\n{ROWS}",
    "t.csv": f"image;breed\n{ROWS}".replace(",", ";"),
    "bare.csv": ROWS,
    "odd.csv": 'a,b\n"x\n',
    "lines.jsonl": '{"file_name": "1.jpg", "label": 1}\n{}\n',
    "binary.csv": "PK\x03\x04\x00\x01",
    "flags.txt": "--epochs=2\n--lr=oops\n",
    "more.txt": "--flagfile=more.txt\n",
    "run/config.json": json.dumps(TrainConfig(data_dir="plain").as_dict()),
    "run/classes.txt": "elm\noak\n",
    "run/split.csv": "file,label,split\noak/1.jpg,oak,train\n",
    "run/checkpoints/best.keras": "",
    "damaged.zip": "PK\x03\x04 and no more",
    "damaged.tgz": "\x1f",
}


class ReachedTensorFlow(BaseException):
    """Ends a command that would need TensorFlow or draw the sample data; no command catches it."""


def stop(*_: object, **__: object) -> None:
    raise ReachedTensorFlow


def list_training(config: TrainConfig, *_: object, **__: object) -> None:
    """Checks the settings and lists the images as a training does, without TensorFlow."""
    config = resolve(load_resumed(config), Machine()).config
    columns = Columns(config.file_column, config.label_column, config.split_column)
    folder = unpack_archive(config.data_dir, "--data_dir", config.cache_folder)
    catalog, _ = list_files(folder, config.labels_csv, columns, config.layout)
    if config.val_dir:
        list_known_classes(config.val_dir, catalog.class_names, "--val_dir")
    raise ReachedTensorFlow


def list_evaluation(run_dir: str, data_dir: str = "", labels_csv: str = "", **given: Any) -> None:
    """Reads the run and lists the images as an evaluation does, without TensorFlow."""
    folder, _ = find_run(run_dir)
    read_settings(folder)
    names = read_class_names(folder)
    if data_dir:
        columns = Columns(given["file_column"], given["label_column"], given["split_column"])
        layout = given["layout"]
        list_known_classes(data_dir, names, labels_csv=labels_csv, columns=columns, layout=layout)
    raise ReachedTensorFlow


def list_checked(
    data_dir: str, labels_csv: str, max_pixels: int, columns: Columns, layout: str
) -> None:
    """Lists the images as ``seedtf check`` does, without decoding them."""
    list_for_check(data_dir, labels_csv, columns, layout, do_nothing)
    raise ReachedTensorFlow


def do_nothing(*_: object) -> None:
    """Replaces a function whose result no test needs."""


# The functions that replace those of a module, by the name of the module.
STUBS: dict[str, dict[str, Callable]] = {
    "seedtf.training.train": {
        "train_and_evaluate": list_training,
        "forecast_training": list_training,
    },
    "seedtf.training.lr_finder.run": {"find_learning_rate": list_training},
    "seedtf.tuning.search": {
        "SearchSettings": types.SimpleNamespace,
        "search": lambda search: list_training(search.config),
    },
    "seedtf.folds.train_folds": {"train_folds": list_training},
    "seedtf.training.preview": {"write_preview": list_training},
    "seedtf.evaluation.evaluate_run": {"evaluate_run": list_evaluation},
    "seedtf.data.check.check": {
        "check_data": list_checked,
        "check_report_path": do_nothing,
        "write_findings": stop,
    },
}


@pytest.fixture(scope="module")
def working_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with ``FOLDERS`` and ``FILES``. ``STUBS`` replace what needs TensorFlow."""
    root = tmp_path_factory.mktemp("lines")
    for folder, names in FOLDERS.items():
        (root / folder).mkdir()
        for name in names:
            (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (root / folder / name).touch()
    for name, text in FILES.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(text.encode("latin-1"))
    with zipfile.ZipFile(root / "plants.zip", "w") as archive:
        for name in FOLDERS["split"]:
            archive.writestr(f"plants/{name}", b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("HOME", str(root))
        patch.setenv("COLUMNS", "80")
        for name, functions in STUBS.items():
            patch.setitem(sys.modules, name, types.SimpleNamespace(**functions))
        modules = [*COMMANDS, *(f"benchmark_{kind}" for kind in KINDS)]
        for name in modules:
            module = importlib.import_module(f"seedtf.commands.{name}")
            is_stubbed = name in ("train", "lr_find", "evaluate", "check", "preview", "folds")
            if hasattr(module, "import_tensorflow"):
                patch.setattr(module, "import_tensorflow", (lambda: None) if is_stubbed else stop)
        patch.setattr("seedtf.commands.sample.write_sample", stop)
        yield root


NUMBERS = (
    "0",
    "1",
    "-1",
    "3",
    "64",
    "1e3",
    "0.5",
    "nan",
    "inf",
    "-inf",
    "1e999",
    "9" * 400,
    "0x10",
)
WORDS = (
    "",
    "auto",
    "none",
    "true",
    "False",
    "0,001",
    "64x64",
    "²",
    "٣",
    "~",
    "~/x",
    "\udce4",
    "a\nb",
)
PATHS = (
    *FOLDERS,
    *FILES,
    "missing",
    "plain/oak",
    "run/checkpoints/best.keras",
    ".",
    "",
)
COLUMNS = ("image", "breed", "file_name", "label", "1", "2", "99", "x")
TEXT = st.text(st.characters(exclude_characters="/~\0", exclude_categories=["Cs"]), max_size=5)


def good_flags(config_class: type, field: dataclasses.Field) -> list[str]:
    """Arguments that set a flag to each of several values of the right type.

    Most values are choices or limits of the flag, or its default. A flag whose name has one of the
    words below gets all ``PATHS``, and a flag for a column gets all ``COLUMNS``, also wrong ones.
    """
    kind, limits = flag_kind(config_class, field.name), field.metadata
    if kind is bool:
        return [f"--{field.name}", f"--no{field.name}"]
    values = [str(choice) for choice in limits["choices"]]
    if field.name.endswith("_column"):
        values = list(COLUMNS)
    elif re.search("(^|_)(dir|csv|run|weights|file|continue|out)(_|$)", field.name):
        values = list(PATHS)
    elif not values and kind in (int, float):
        values = [str(kind(limit)) for limit in (limits["low"], limits["high"]) if abs(limit) < 1e9]
    values = values or ["auto" if field.default is None else str(field.default)]
    return [f"--{field.name}={value}" for value in values]


@st.composite
def wrong_arguments(draw: st.DrawFn, field: dataclasses.Field) -> str:
    """Draws an argument whose flag, value or form is probably wrong, or a file of flags."""
    name = draw(st.sampled_from([field.name, field.name.replace("_", "-"), field.name[:3], "x"]))
    value = draw(st.sampled_from(NUMBERS + WORDS + PATHS) | TEXT)
    forms = (f"--{name}={value}", f"-{name}={value}", f"--{name}", f"--no{name}", f"{name}={value}")
    others = (value, f"--{value}", "--", "-", "--=", "--help")
    files = [f"--flagfile={path}" for path in (*FILES, "plain", "")]
    return draw(st.sampled_from((*forms, *forms, *others)) | st.sampled_from(files))


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """Draws a command with the arguments that it needs, and with up to five more flags."""
    command = draw(st.sampled_from(list(COMMANDS)))
    config_class, fields = CONFIGS[command], list(dataclasses.fields(CONFIGS[command]))
    line = [command]
    folders, runs = (
        st.sampled_from([*FOLDERS, "plants.zip"]),
        st.sampled_from(["run", "plain"]),
    )
    if command in ("train", "lr_find", "tune", "preview", "folds"):
        line.append(f"--data_dir={draw(folders)}")
        if draw(st.booleans()):
            line.append(f"--labels_csv={draw(st.sampled_from(list(FILES)))}")
    elif command == "benchmark":
        line.append(draw(st.sampled_from(list(KINDS))))
    elif command == "check":
        line.append(draw(folders))
    elif command == "completion":
        line.append(draw(st.sampled_from(["bash", "sh"])))
    elif command not in ("data_service", "sample"):
        takes_two = command in ("compare", "predict", "ensemble")
        line += [draw(runs) for _ in range(2 if takes_two else 1)]
    flags = [f for f in fields if f.name not in ("data_dir", "help", "storage", "study")]
    for field in draw(st.lists(st.sampled_from(flags), max_size=3)) if flags else ():
        line.append(draw(st.sampled_from(good_flags(config_class, field))))
    if flags and draw(st.booleans()):
        fields = draw(st.lists(st.sampled_from(flags), min_size=1, max_size=2))
        line += [draw(wrong_arguments(field)) for field in fields]
    return line


def test_good_flags_fit_the_name_the_choices_and_the_range_of_a_flag() -> None:
    tune = {field.name: field for field in dataclasses.fields(CONFIGS["tune"])}
    drawn = {name: good_flags(CONFIGS["tune"], field) for name, field in tune.items()}
    assert "--layout=split_folders" in drawn["layout"]
    assert "--pruner=hyperband" in drawn["pruner"]
    assert drawn["worker_timeout"] == ["--worker_timeout=5", "--worker_timeout=3600"]
    assert drawn["file_column"] == [f"--file_column={column}" for column in COLUMNS]
    for name in ("data_dir", "split_csv", "run_dir", "weights", "continue_from", "out"):
        assert drawn[name] == [f"--{name}={path}" for path in PATHS]


@settings(max_examples=300)
@given(line=command_lines())
def test_a_command_line_never_ends_in_a_traceback(line: list[str], working_folder: Path) -> None:
    out, err = io.StringIO(), io.StringIO()
    code: object = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(line)
        except ReachedTensorFlow:
            code = "reached"
        except SystemExit as end:
            code = end.code
    shown = err.getvalue()
    assert code in ("reached", 0, 1, 2, 3), (code, shown)
    assert "Traceback" not in out.getvalue() + shown
    if code == 2 and "usage:" not in out.getvalue():
        *notices, last = shown.splitlines()
        assert last.startswith("seedtf "), shown
        assert all(re.search("is now --|circular flagfile", n) for n in notices), shown


def test_a_path_with_control_characters_is_shown_in_one_line(working_folder: Path, capsys) -> None:
    assert main(["train", "--data_dir=a\nb\x1b[2J"]) == 2
    path = f"{working_folder}/a\\nb\\x1b[2J"
    expected = f"seedtf train: --data_dir={path}: no such folder; pass a folder with"
    assert capsys.readouterr().err.startswith(expected)


def test_a_zero_byte_in_a_flagfile_is_refused(working_folder: Path, capsys) -> None:
    assert main(["evaluate", "--flagfile=binary.csv"]) == 2
    assert "contains a zero byte; correct the value" in capsys.readouterr().err
