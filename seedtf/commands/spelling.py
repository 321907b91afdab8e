"""Refuses flags that are spelled as in other tools; the error contains the correct spelling."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Sequence

from seedtf.config.flags import flag_kind, suggest_value
from seedtf.errors import UserError

__all__ = ["check_spelling", "describe_wrong_type", "find_flag_name"]

# Flags of Keras, timm, fastai, Ultralytics and Hugging Face's trainer -> the same flag in seedtf.
_OTHER_NAMES = {
    "arch": "model",
    "backbone": "model",
    "batch": "batch_size",
    "bs": "batch_size",
    "data": "data_dir",
    "data_path": "data_dir",
    "dataset": "data_dir",
    "imgsz": "image_size",
    "img_size": "image_size",
    "input_size": "image_size",
    "learning_rate": "lr",
    "lr0": "lr",
    "num_epochs": "epochs",
    "num_train_epochs": "epochs",
    "opt": "optimizer",
    "output": "out",
    "output_dir": "out",
    "pretrained": "weights",
    "project": "run_dir",
    "save_dir": "out",
    "train_dir": "data_dir",
    "val_split": "val_fraction",
    "validation_split": "val_fraction",
    "wd": "weight_decay",
}
_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")
_ASSIGNMENT = re.compile(r"([–—-]*)([A-Za-z][\w-]*)=(.*)", re.DOTALL)


def find_flag_name(word: str, names: Iterable[str]) -> str:
    """The entry of ``names`` that ``word`` means in seedtf or in another tool; empty if none does.

    Example:
        >>> find_flag_name("imgsz", ["image_size", "epochs"])
        'image_size'
    """
    word = word.replace("-", "_").lower()
    other = _OTHER_NAMES.get(word, "")
    return word if word in set(names) else other if other in set(names) else ""


def check_spelling(config_class: type, arguments: Sequence[str]) -> None:
    """Raises UserError for arguments that are spelled as in another tool, such as ``epochs=2``.

    Args:
        config_class: a dataclass of ``option``s.
        arguments: the command line after the command, up to a ``--``.
    """
    fields = {option.name: option for option in dataclasses.fields(config_class)}
    names = [*fields, *(option.metadata["alias"] for option in fields.values())]
    _check_assignments(arguments, names)
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        name, equals, value = argument.lstrip("-").partition("=")
        name = name.replace("-", "_")
        if not argument.startswith("-"):
            continue
        is_number = flag_kind(config_class, name) in (int, float)
        value_follows = equals and not value and not following.startswith("-")
        if following == "=" or (is_number and value_follows):
            raise UserError(f"{argument} {following}: write --{name}=value, without blanks")
        negated = name.removeprefix("no_")
        if negated != name and name not in fields and _is_boolean(config_class, negated):
            raise UserError(f"{argument}: write --no{negated}")
        boolean_follows = following.lower() in (*_TRUE, *_FALSE) and not os.path.exists(following)
        if not equals and boolean_follows and _is_boolean(config_class, name):
            negation = "" if following.lower() in _TRUE else "no"
            raise UserError(f"{argument} {following}: write --{negation}{name}")
        if name in fields and value in ("None", "null") and not os.path.exists(value):
            has_none = name == "weights" or "none" in fields[name].metadata["choices"]
            remedy = f"write --{name}=none" if has_none else "leave the flag out"
            raise UserError(f"{argument}: {remedy}")


def _check_assignments(arguments: Sequence[str], names: Sequence[str]) -> None:
    """Raises UserError for ``epochs=2``, and for flags with a longer dash from a text editor."""
    wrong, right = [], []
    for argument in arguments:
        match = _ASSIGNMENT.fullmatch(argument)
        if not match or match[1] in ("-", "--") or os.path.exists(argument):
            continue
        if name := find_flag_name(match[2], names):
            wrong.append(argument)
            right.append(f"--{name}={match[3]}")
    if wrong:
        raise UserError(f"{' '.join(wrong)}: flags have two dashes; write {' '.join(right)}")


def _is_boolean(config_class: type, name: str) -> bool:
    return flag_kind(config_class, name) is bool


def describe_wrong_type(config_class: type, name: str, text: str) -> str:
    """The message for a value that is not of the flag's type, with the correct spelling if known."""
    kind = flag_kind(config_class, name)
    if correct := suggest_value(kind, text):
        return f"--{name}={text}: write --{name}={correct}"
    if sides := re.fullmatch(r"(\d+) *[x×,] *(\d+)", text):
        return f"--{name}={text}: pass one whole number, such as {max(map(int, sides.groups()))}"
    expected: dict[type, str] = {int: "a whole number", float: "a number", bool: "true or false"}
    return f"--{name}={text}: pass {expected.get(kind, 'another value')}"
