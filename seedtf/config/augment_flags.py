"""``AugmentFlags``: the ranges of the random changes to training images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from seedtf.augment import AUGMENT_IMPLS, FLIPS, LIMITS
from seedtf.config.flags import option
from seedtf.config.recipes import RecipeFlags, by_recipe

if TYPE_CHECKING:
    from seedtf.augment.mixing import Mixing
    from seedtf.augment.policy import Policy

__all__ = ["AugmentFlags"]


@dataclass(frozen=True)
class AugmentFlags(RecipeFlags):
    """Geometry, colour, mixing of images, and the implementation that applies them."""

    HEADING: ClassVar[str] = "Augmentation"

    augment_strength: float | str = by_recipe(
        "augment_strength",
        "Factor on all augmentation ranges, 0 to 10; 0 is off. With auto, the factor rises while the "
        "training accuracy is above the validation accuracy, and falls while it is below. With --mixup "
        "or --cutmix, the factor does not fall.",
        low=0.0,
        high=10.0,
    )
    flip: str = option(
        "both",
        "Directions of random flips. Each is applied to half of the images, or to fewer if "
        "--augment_strength is below 1. 'both' suits only images without a fixed orientation, such as "
        "photos from above.",
        choices=FLIPS,
    )
    crop: float = by_recipe(
        "crop",
        "Largest fraction of each side that is cropped away, 0 to 0.9. To change the aspect ratio, "
        "--stretch crops one side further. With --crop=0.1, --stretch=0.1 and --augment_strength=1, "
        "up to 14 % of it is lost.",
        low=0.0,
        high=LIMITS["crop"],
    )
    zoom_out: float = by_recipe(
        "zoom_out",
        "Largest zoom out, 0 to 0.2. With 0.1, an image shrinks by up to a factor of 1.1, and its "
        "mirror image fills the margin. If --crop and --zoom_out are equal, objects have on average "
        "the same size in training as in evaluation.",
        low=0.0,
        high=LIMITS["zoom_out"],
    )
    stretch: float = option(
        0.1, "Largest relative change of the aspect ratio, 0 to 1.", low=0.0, high=LIMITS["stretch"]
    )
    rotate: float | str = by_recipe(
        "rotate",
        "Largest rotation in either direction, 0 to 180 degrees. auto means 180 with --flip=both, "
        "because such images have no fixed orientation, and 0 with other values of --flip.",
        low=0.0,
        high=LIMITS["rotate"],
    )
    shear: float = option(
        0.0,
        "Largest shear angle in either direction, 0 to 45 degrees.",
        low=0.0,
        high=LIMITS["shear"],
    )
    brightness: float = option(
        0.1,
        "Largest change of brightness as a fraction of the full range, 0 to 1.",
        low=0.0,
        high=LIMITS["brightness"],
    )
    contrast: float = option(
        0.1, "Largest relative change of contrast, 0 to 1.", low=0.0, high=LIMITS["contrast"]
    )
    saturation: float = option(
        0.1, "Largest relative change of saturation, 0 to 1.", low=0.0, high=LIMITS["saturation"]
    )
    hue: float = option(
        5.0,
        "Largest rotation of the hue in either direction, 0 to 180 degrees.",
        low=0,
        high=LIMITS["hue"],
    )
    mixup: float = option(
        0.0,
        "Parameter a of MixUp, 0 to 10; 0 is off. Two images and their labels are blended with a "
        "weight drawn from Beta(a, a).",
        low=0.0,
        high=10.0,
    )
    cutmix: float = option(
        0.0,
        "Parameter a of CutMix, 0 to 10; 0 is off. A rectangle of another image, with an area drawn "
        "from Beta(a, a), is pasted. If --mixup is also on, each image gets MixUp or CutMix at random.",
        low=0.0,
        high=10.0,
    )
    random_erasing: float = option(
        0.0,
        "Fraction of the images in which a random rectangle is replaced by noise, 0 to 1.",
        low=0.0,
        high=1.0,
    )
    augment_impl: str = option(
        "fused",
        "Implementation: one compiled resampling and one colour matrix (fused), or a sequence of "
        "operations, either of TensorFlow (tf_image) or of TensorFlow Addons (addons; needs "
        "seedtf[addons]).",
        choices=AUGMENT_IMPLS,
    )

    @property
    def rotation(self) -> float:
        """The largest rotation in degrees: the value of ``rotate``, or what ``auto`` stands for."""
        if isinstance(self.rotate, str):
            return 180.0 if self.flip == "both" else 0.0
        return self.rotate

    def make_policy(self) -> Policy:
        """The ranges of geometry and colour, multiplied by ``augment_strength`` if it is a number."""
        from seedtf.augment.policy import Policy

        strength = self.augment_strength
        ranges = Policy(
            crop=self.crop,
            stretch=self.stretch,
            rotate=self.rotation,
            shear=self.shear,
            flip=self.flip,
            brightness=self.brightness,
            contrast=self.contrast,
            saturation=self.saturation,
            hue=self.hue,
            zoom_out=self.zoom_out,
        )
        return ranges.scaled(strength if isinstance(strength, float) else 1.0)

    def make_mixing(self) -> Mixing:
        """The settings of MixUp, CutMix and random erasing."""
        from seedtf.augment.mixing import Mixing

        return Mixing(self.mixup, self.cutmix, self.random_erasing)
