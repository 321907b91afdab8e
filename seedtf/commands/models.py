"""``seedtf models``: lists the networks that ``--model`` accepts, with sizes and licences."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from seedtf.commands.arguments import parse_config
from seedtf.config.flags import Flags, option
from seedtf.errors import UserError
from seedtf.report import report, report_text

__all__ = ["ModelsConfig", "run"]

POSITIONALS = ("word",)

_ALL = "all"


@dataclass(frozen=True)
class ModelsConfig(Flags):
    """The word and the flags of ``seedtf models``."""

    word: str = option(
        _ALL, "Part of a name, such as resnet; 'all' lists every network with pretrained weights."
    )
    json: bool = option(False, "Print one line of JSON instead of the table.")


def run(arguments: list[str]) -> int:
    """Prints the table and returns the exit code."""
    config = parse_config(ModelsConfig, "models", arguments, POSITIONALS)
    from seedtf.model.listing import list_models, table_lines

    models, has_hub = list_models("" if config.word == _ALL else config.word)
    if not models:
        hint = "" if has_hub else "; pip install 'seedtf[hub]' adds a hundred networks"
        raise UserError(f"{config.word}: no network has this word in its name{hint}")
    if config.json:
        report_text(json.dumps([{**asdict(model), "sizes": str(model.sizes)} for model in models]))
        return 0
    for line in table_lines(models):
        report_text(line)
    if not has_hub:
        report(
            "hub", "not installed: pip install 'seedtf[hub]' adds a hundred networks and presets"
        )
    report(
        "presets",
        "--model also takes a folder, hf://owner/name or kaggle://owner/model/framework/variation",
    )
    return 0
