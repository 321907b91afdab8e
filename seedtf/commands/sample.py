"""``seedtf sample``: generates synthetic sample images and writes them as class folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seedtf.commands.arguments import parse_config
from seedtf.config.flags import Flags, option
from seedtf.data.sample.write import write_sample
from seedtf.errors import UserError
from seedtf.report import report_text

__all__ = ["SampleConfig", "run"]


@dataclass(frozen=True)
class SampleConfig(Flags):
    """The flags of ``seedtf sample``."""

    out: str = option("sample_data", "Folder to create, with a sub-folder for each class.")
    seed: int = option(0, "Random seed of the generated images, 0 or more.", low=0)
    images_per_class: int = option(120, "Images of each class, 1 to 10000.", low=1, high=10_000)
    image_size: int = option(96, "Side of the images in pixels, 16 to 1024.", low=16, high=1024)


def run(arguments: list[str]) -> int:
    """Generates and writes the images, and returns the exit code."""
    config = parse_config(SampleConfig, "sample", arguments)
    try:
        root = write_sample(
            Path(config.out),
            seed=config.seed,
            images_per_class=config.images_per_class,
            image_size=config.image_size,
        )
    except OSError as error:
        raise UserError(f"--out={config.out}: {error.strerror}; pass another folder") from error
    report_text(str(root))
    return 0
