"""The flags of a training run: declared in groups, combined in ``TrainConfig``, saved and read back.

The groups are not next to the code that they configure, most of which is in ``training/``: ``runs/``
needs all flags too, and ``runs/`` must not import ``training/``. No module here imports TensorFlow at
module level, so that ``seedtf train --help`` is fast.
"""
