"""``seedtf preview``: what augmentation does to the images, without training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seedtf.commands.arguments import parse_config
from seedtf.commands.tensorflow_env import import_tensorflow
from seedtf.config.flags import option
from seedtf.config.train_config import TrainConfig
from seedtf.errors import UserError
from seedtf.runs.paths import AUGMENTED

__all__ = ["PreviewConfig", "run"]


@dataclass(frozen=True)
class PreviewConfig(TrainConfig):
    """The flags of ``train``, so that a run's flags.txt can be previewed, and where to draw."""

    out: str = option(AUGMENTED, "Image to write or replace; the suffix .png is expected.")


def run(arguments: list[str]) -> int:
    """Writes the image and returns the exit code."""
    config = parse_config(PreviewConfig, "preview", arguments)
    out = Path(config.out)
    if not out.parent.is_dir():
        raise UserError(f"--out={out}: no folder {out.parent}; create it or pass another path")
    import_tensorflow()
    from seedtf.training.preview import write_preview

    write_preview(config, out)
    print(out)
    return 0
