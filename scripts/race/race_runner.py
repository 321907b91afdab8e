"""What the scripts of this folder share: arguments, time of the first step, number of code lines."""

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
class RaceArgs:
    """The command-line arguments of one training.

    Attributes:
        data: the folder with the sub-folders ``train`` and ``val``.
        out: the folder of the results.
        network: the path of the ImageNet weights: a preset of KerasHub, or a file for timm.
        pretrained: whether training starts from these weights.
        image_size: side in pixels.
        epochs: number of epochs.
    """

    data: Path
    out: Path
    network: str
    pretrained: bool
    image_size: int
    epochs: int

    def record_first_step(self, *_: Any, **__: Any) -> None:
        """Writes the time at its first call; a callback for the end of every training step."""
        write_first_step(self.out)


def write_first_step(out: Path) -> None:
    """Writes the current time to ``out/first_step``, unless that file exists."""
    path = out / "first_step"
    if not path.exists():
        path.with_suffix(".new").write_text(str(time.time()))
        path.with_suffix(".new").rename(path)


def main(settings: dict[str, Callable[[RaceArgs], None]]) -> None:
    """Reads the command line, writes the number of code lines of the setting to ``lines``, and trains.

    Args:
        settings: the functions that train, by the value of ``--setting``. With ``--pretrained=1``, the
            function with the key ``<setting>_pretrained`` is called instead if there is one.
    """
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
    train = settings.get(f"{name}_pretrained" if pretrained else name, settings[name])
    args = RaceArgs(**{**values, "pretrained": pretrained})
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "lines").write_text(str(count_lines(train)))
    train(args)


def count_lines(train: Callable[[RaceArgs], None]) -> int:
    """The number of code lines that a user would write for ``train`` and the functions that it uses.

    An import that these functions use counts as one line. Not counted are empty lines, comments,
    docstrings of one line (longer ones would count), the ``def`` lines of the settings, and lines that
    contain ``first_step``.
    """
    module = inspect.getmodule(train)
    assert module is not None
    own = {name: part for name, part in vars(module).items() if inspect.getmodule(part) is module}
    used, found = set(), {train.__name__}  # names of functions: examined, and all found so far
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
