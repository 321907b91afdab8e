"""Random changes to training images.

The module ``policy`` draws the parameters of each image, and ``fused`` or ``reference`` applies the
parameters. This file lists the values of ``--flip`` and ``--augment_impl`` without importing
TensorFlow, because ``--help`` shows the values and has to be fast.
"""

__all__ = ["AUGMENT_CHAINS", "AUGMENT_IMPLS", "FLIPS"]

FLIPS = ("none", "horizontal", "vertical", "both")
"""The values of ``--flip``."""

AUGMENT_CHAINS = ("tf_image", "addons")
"""The values of ``--augment_impl`` that apply one operation after another (see ``reference``)."""

AUGMENT_IMPLS = ("fused", *AUGMENT_CHAINS)
"""All values of ``--augment_impl``."""
