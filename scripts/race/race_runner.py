"""What the scripts of the race share: their arguments, the mark of the first step, the lines."""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Race:
    """One training: ``data`` has the folders train and val, ``network`` is where the weights are."""

    data: Path
    out: Path
    network: str
    pretrained: bool
    image_size: int
    epochs: int

    def first_step(self, *_: Any, **__: Any) -> None:
        """A callback for the end of a training step; the first call writes the time to a file."""
        mark_first_step(self.out)


def mark_first_step(out: Path) -> None:
    """Writes the time to ``out/first_step``, unless it was written before."""
    path = out / "first_step"
    if not path.exists():
        path.with_suffix(".new").write_text(str(time.time()))
        path.with_suffix(".new").rename(path)


def main(settings: dict[str, Callable[[Race], None]]) -> None:
    """Reads the command line, writes how many lines the setting takes, and trains."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--setting", choices=("default", "best"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--network")
    parser.add_argument("--pretrained", type=int)
    parser.add_argument("--image_size", type=int)
    parser.add_argument("--epochs", type=int)
    values = vars(parser.parse_args())
    name, pretrained = values.pop("setting"), bool(values["pretrained"])
    setting = settings.get(f"{name}_pretrained" if pretrained else name, settings[name])
    race = Race(**{**values, "pretrained": pretrained})
    (race.out / "lines").write_text(str(count_lines(setting)))
    setting(race)


def count_lines(setting: Callable[[Race], None]) -> int:
    """The lines of a setting that a user would write: imports, statements, functions that it uses.

    An import counts as one line. Empty lines, comments, docstrings (of one line), and lines that only
    measure are left out.
    """
    module = inspect.getmodule(setting)
    assert module is not None
    own = {name: part for name, part in vars(module).items() if inspect.getmodule(part) is module}
    used, found = set(), {setting.__name__}
    while found - used:
        name = (found - used).pop()
        used.add(name)
        words = set(re.findall(r"\w+", inspect.getsource(own[name])))
        found |= words & own.keys()
    lines = [line.strip() for name in used for line in inspect.getsource(own[name]).splitlines()]
    words = set(re.findall(r"\w+", "".join(inspect.getsource(own[name]) for name in used)))
    imports = [
        node
        for node in ast.parse(inspect.getsource(module)).body
        if isinstance(node, ast.Import | ast.ImportFrom) and "race_runner" not in ast.unparse(node)
        if words & {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    ]
    ignored = re.compile(r"$|#|\"|.*first_step|def (default|best)")
    return len(imports) + sum(not ignored.match(line) for line in lines)
