"""``NetworkFlags``: the network, its initial weights, its number format and its compilation."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import ClassVar

from seedtf.config.flags import AUTO, option
from seedtf.config.recipes import DEFAULT_WEIGHTS, RANDOM_WEIGHTS, RecipeFlags, by_recipe
from seedtf.errors import UserError

__all__ = ["FITTED_HEAD", "HEADS", "JIT_COMPILE", "PRECISIONS", "NetworkFlags"]

PRECISIONS = (AUTO, "float32", "mixed_bfloat16", "mixed_float16")
FITTED_HEAD = "fitted"
HEADS = ("random", FITTED_HEAD)
JIT_COMPILE = (AUTO, "on", "off")


@dataclass(frozen=True)
class NetworkFlags(RecipeFlags):
    """Architecture, initial weights, batch normalization, number format and XLA."""

    HEADING: ClassVar[str] = "Network"

    model: str = option(
        "ResNet50",
        "Name of a keras.applications network, in upper or lower case; 'tiny' for a small network; "
        "or a preset of KerasHub: its name, its folder, hf://owner/name or kaggle://….",
    )
    weights: str = option(
        DEFAULT_WEIGHTS,
        "Initial weights: imagenet (downloaded; for a preset, its own weights), none (random), the "
        "path of a .keras or .h5 file, or a run folder, whose best model is used.",
    )
    head: str = option(
        "random",
        "Initial weights of the head: random, or the weights of a logistic regression on the "
        "features of the training images (fitted; needs seedtf[probe]).",
        choices=HEADS,
    )
    precision: str = option(
        AUTO,
        "Number format of the network; auto uses 16 bits on GPUs that compute faster with them.",
        choices=PRECISIONS,
    )
    jit_compile: str = option(
        AUTO,
        "Whether to compile the train step with XLA; auto compiles it on a GPU, but not with "
        "--deterministic.",
        choices=JIT_COMPILE,
    )
    bn_momentum: float | str = by_recipe(
        "bn_momentum",
        "Momentum of the moving averages of batch normalization, 0 to 0.9999; auto chooses it from "
        "the number of steps in an epoch.",
        low=0.0,
        high=0.9999,
    )
    zero_init_residual: bool = by_recipe(
        "zero_init_residual",
        "Initialize the last normalization of each residual branch to zero, if weights are random.",
    )

    def check_together(self) -> None:
        """Raises UserError if ``weights`` is a misspelling or synonym of ``none`` or ``imagenet``."""
        super().check_together()
        synonyms = {"null": "none", "random": "none", "scratch": "none", "default": "imagenet"}
        given = self.weights.lower()
        meant = synonyms.get(given, given)
        if (
            meant in (RANDOM_WEIGHTS, DEFAULT_WEIGHTS)
            and self.weights != meant
            and not os.path.exists(self.weights)
        ):
            raise UserError(f"--weights={self.weights}: write --weights={meant}")

    @property
    def has_weights_file(self) -> bool:
        """Whether ``weights`` is the path of a file or of a run."""
        return self.weights not in (RANDOM_WEIGHTS, DEFAULT_WEIGHTS)
