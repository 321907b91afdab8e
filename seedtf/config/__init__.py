"""The flags of a training run: declared in groups, combined in ``TrainConfig``, saved and read back.

The groups are in this package, not next to the code that they configure, because of the direction of
imports: most of that code is in ``training/``, above this package, and ``runs/``, which lies between
the two, needs the whole configuration. No module here imports TensorFlow at module level, so that
``seedtf train --help`` is fast.
"""
