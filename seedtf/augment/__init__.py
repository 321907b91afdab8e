"""Random changes to training images: a policy draws the parameters, an implementation applies them.

The values of ``--flip`` and ``--augment_impl`` are listed in this file because it does not import
TensorFlow: ``config/`` reads them for ``--help``.
"""

__all__ = ["AUGMENT_CHAINS", "AUGMENT_IMPLS", "FLIPS"]

FLIPS = ("none", "horizontal", "vertical", "both")
"""The values of ``--flip``."""

AUGMENT_CHAINS = ("tf_image", "addons")
"""The values of ``--augment_impl`` that apply one plain operation after another."""

AUGMENT_IMPLS = ("fused", *AUGMENT_CHAINS)
"""All values of ``--augment_impl``."""
