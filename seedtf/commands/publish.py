"""``seedtf publish RUN``: writes or uploads a folder with the export of a run and its model card."""

from __future__ import annotations

import json
from dataclasses import dataclass

from seedtf.commands.arguments import parse_config
from seedtf.compat.tensorflow_env import import_tensorflow
from seedtf.config.flags import Flags, option
from seedtf.errors import UserError
from seedtf.report import report, report_result

__all__ = ["PublishConfig", "run"]

POSITIONALS = ("run",)


@dataclass(frozen=True)
class PublishConfig(Flags):
    """The run and the flags of ``seedtf publish``."""

    run: str = option("", "Folder of a run that was evaluated and exported.")
    out: str = option(
        "",
        "New folder, or hf://user/name to upload to Hugging Face; a new repository is private.",
    )

    def check_together(self) -> None:
        """Raises UserError if ``out`` is missing."""
        super().check_together()
        if not self.out:
            raise UserError("--out is missing; pass a new folder, or hf://user/name")


def run(arguments: list[str]) -> int:
    """Writes or uploads the folder and returns the exit code."""
    config = parse_config(PublishConfig, "publish", arguments, POSITIONALS)
    import_tensorflow()
    from seedtf.export.publish import publish_run

    place = publish_run(config.run, config.out)
    report("published", place)
    report("next", "read the model card in its README.md, and add the licence that you choose")
    report_result(json.dumps({"out": place}))
    return 0
