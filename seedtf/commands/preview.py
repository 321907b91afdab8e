"""``seedtf preview``: draws what augmentation does to the images, without training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from seedtf.commands.arguments import parse_config
from seedtf.compat.tensorflow_env import import_tensorflow
from seedtf.config.augment_flags import AugmentFlags
from seedtf.config.data_flags import DataFlags
from seedtf.config.flags import Flags, option
from seedtf.config.train_config import TrainConfig
from seedtf.errors import UserError
from seedtf.files import check_parent
from seedtf.report import report_text
from seedtf.runs.paths import AUGMENTED

__all__ = ["PreviewConfig", "run"]


@dataclass(frozen=True)
class PreviewConfig(TrainConfig):
    """The output file, and the flags of ``train``, so that the flags.txt of a run can be passed."""

    HELP_GROUPS: ClassVar[tuple[type[Flags], ...]] = (DataFlags, AugmentFlags)

    out: str = option(AUGMENTED, "PNG image to write or replace.")
    seed: int = option(
        0,
        "Seed of the augmentation, 0 to 2147483647.",
        low=0,
        high=2**31 - 1,
    )

    def check_together(self) -> None:
        """Raises UserError if ``data_dir`` is missing; a preview cannot take it from another run."""
        super().check_together()
        if not self.data_dir:
            raise UserError("--data_dir is missing; pass a folder of images, or 'sample'")


def run(arguments: list[str]) -> int:
    """Writes the image and returns the exit code."""
    config = parse_config(PreviewConfig, "preview", arguments)
    out = Path(config.out)
    check_parent(out, "--out")
    import_tensorflow()
    from seedtf.training.preview import write_preview

    write_preview(config, out)
    report_text(str(out))
    return 0
