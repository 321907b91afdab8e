"""Random changes to training images.

``policy`` draws the parameters of each image, and ``fused`` or ``reference`` applies them.

This file lists the values of ``--flip`` and ``--augment_impl`` without importing TensorFlow, because
``config/`` reads them for ``--help``.
"""

__all__ = ["AUGMENT_CHAINS", "AUGMENT_IMPLS", "FLIPS"]

FLIPS = ("none", "horizontal", "vertical", "both")
"""The values of ``--flip``."""

AUGMENT_CHAINS = ("tf_image", "addons")
"""The values of ``--augment_impl`` that apply one operation after another, see ``reference``."""

AUGMENT_IMPLS = ("fused", *AUGMENT_CHAINS)
"""All values of ``--augment_impl``."""
