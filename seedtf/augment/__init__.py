"""Random changes to training images.

The module ``policy`` draws the parameters of each image, and ``fused`` or ``reference`` applies the
parameters. This file lists values and limits of flags without importing TensorFlow, because ``--help``
shows them and has to be fast.
"""

__all__ = ["AUGMENT_CHAINS", "AUGMENT_IMPLS", "FLIPS", "LIMITS"]

FLIPS = ("none", "horizontal", "vertical", "both")
"""The values of ``--flip``."""

AUGMENT_CHAINS = ("tf_image", "addons")
"""The values of ``--augment_impl`` that apply one operation after another (see ``reference``)."""

AUGMENT_IMPLS = ("fused", *AUGMENT_CHAINS)
"""All values of ``--augment_impl``."""

LIMITS = {
    "crop": 0.9,
    "stretch": 1.0,
    "rotate": 180.0,
    "shear": 45.0,
    "brightness": 1.0,
    "contrast": 1.0,
    "saturation": 1.0,
    "hue": 180.0,
    "flip_probability": 0.5,
    # Rotated and sheared, a window of 1.2 times the image reads up to 0.94 times the image's size
    # outside of it. `fused._mirror` allows 1, which a limit of 0.236 would reach.
    "zoom_out": 0.2,
}
"""The largest value of each range of ``policy.Policy``, and of the flag with the same name."""
