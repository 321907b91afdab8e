"""``TrainConfig``: all settings of a training run, combined from the groups of flags.

The command line has one flag for each field, with the same name.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any, ClassVar

from seedtf.config.augment_flags import AugmentFlags
from seedtf.config.data_flags import BALANCED, PATH_FLAGS, SAMPLE, DataFlags
from seedtf.config.flags import AUTO
from seedtf.config.network_flags import NetworkFlags
from seedtf.config.optim_flags import OptimFlags
from seedtf.config.recipes import default_rate
from seedtf.config.run_flags import NEWEST, DeviceFlags, RunFlags
from seedtf.data.paths import is_url
from seedtf.errors import UserError
from seedtf.model.presets import is_folder, names_efficientnet

__all__ = ["AUTO", "BALANCED", "NEWEST", "PATH_FLAGS", "SAMPLE", "TrainConfig"]


# The fields of the last base class come first in a dataclass, so --help begins with the data flags.
@dataclass(frozen=True)
class TrainConfig(DeviceFlags, RunFlags, AugmentFlags, OptimFlags, NetworkFlags, DataFlags):
    """The settings of ``train_and_evaluate``, which are also the flags of ``seedtf train``.

    The constructor sets the flags that are not given to the defaults of the recipe, and checks every
    value. For a value that is not allowed, it raises a ``UserError`` whose message names the flag. The
    metadata of each field has the help of the flag, and its inclusive range (``low``, ``high``) or its
    ``choices``.

    Example:
        >>> config = TrainConfig(data_dir="sample", optimizer="sgd", weights="none")
        >>> config.epochs, config.highest_rate
        (20, 0.05)
        >>> TrainConfig(data_dir="sample", val_fraction=2)
        Traceback (most recent call last):
        seedtf.errors.UserError: --val_fraction=2: out of range; pass 0.01 to 0.9
    """

    HEADING: ClassVar[str] = ""

    def check_together(self) -> None:
        """Raises UserError if no data is given, or flags of different groups contradict each other."""
        super().check_together()
        if not (self.data_dir or self.resume or self.continue_from):
            raise UserError("--data_dir is missing; pass a folder of images, or 'sample'")
        if self.pseudo_labels and self.teacher:
            raise UserError("--pseudo_labels excludes --teacher; pass one")
        if self.data_service and self.augment_strength == AUTO:
            raise UserError(
                "--augment_strength=auto: the workers of --data_service do not receive the changing "
                "strength; pass a number"
            )

    @property
    def highest_rate(self) -> float:
        """The value of ``lr``; if it is not set, the default.

        For a network that is a preset, the files of the preset are read to find the default.
        """
        return self.lr or self.default_rate(names_efficientnet(self.model))

    def default_rate(self, is_efficientnet: bool) -> float:
        """The default of ``lr``, for an EfficientNet or for another network."""
        return default_rate(
            self.optimizer,
            self.weights,
            recipe=self.recipe_in_use,
            is_efficientnet=is_efficientnet,
        )

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return dataclasses.asdict(self)

    def with_absolute_paths(self) -> TrainConfig:
        """A copy in which the paths of data, cache, weights, model and teacher are absolute.

        Such a configuration can be used in any working directory.
        """
        names = (*PATH_FLAGS, *(("weights",) if self.has_weights_file else ()))
        names += ("model",) if is_folder(self.model) else ()
        names += ("teacher",) if self.teacher else ()
        paths = {name: getattr(self, name) for name in names}
        absolute = {
            name: os.path.abspath(path)
            for name, path in paths.items()
            if path and path != SAMPLE and not is_url(path)
        }
        return dataclasses.replace(self, **absolute)

    def to_flagfile(self) -> str:
        """The flags as an absl flagfile, with which ``seedtf train --flagfile=…`` repeats the run.

        Paths are absolute, so that the flagfile can be used in any working directory. The flags
        ``run_dir``, ``resume`` and ``continue_from`` are left out, so that a new run is started.

        Example:
            >>> print(TrainConfig(data_dir="sample", snapshots=False).to_flagfile()[:34])
            --data_dir=sample
            --image_size=224
        """
        lines = []
        left_out = {"run_dir", "resume", "continue_from"}
        left_out |= {flag.name for flag in dataclasses.fields(self) if flag.metadata["replaced_by"]}
        for name, value in self.with_absolute_paths().as_dict().items():
            if name in left_out or value is None or value == "":
                continue
            if isinstance(value, bool):
                lines.append(f"--{'' if value else 'no'}{name}")
                continue
            lines.append(f"--{name}={value}")
        return "\n".join(lines) + "\n"
