"""``seedtf sample``: the embedded images as class folders of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seedtf.commands.arguments import parse_config
from seedtf.config.flags import check_ranges, option
from seedtf.data.sample.write import write_sample
from seedtf.errors import UserError

__all__ = ["SampleConfig", "run"]


@dataclass(frozen=True)
class SampleConfig:
    """The flags of ``seedtf sample``."""

    out: str = option("sample_data", "Folder to create; one sub-folder per species.")
    seed: int = option(0, "Another number draws other images, 0 or more.", low=0)
    images_per_class: int = option(120, "Images of each species, 1 to 10000.", low=1, high=10_000)
    image_size: int = option(96, "Side of an image in pixels, 16 to 1024.", low=16, high=1024)

    def __post_init__(self) -> None:
        """Checks every field; raises UserError naming the flag, the value and the range."""
        check_ranges(self)


def run(arguments: list[str]) -> int:
    """Draws the images and returns the exit code."""
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
    print(root)
    return 0
