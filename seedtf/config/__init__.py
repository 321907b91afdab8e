"""The flags of a training run: declared in groups, combined in ``TrainConfig``, saved and read back.

The groups are in this package, not next to the code that they configure. Most of that code is in
``training/``, but ``runs/``, which ``training/`` imports, needs the whole configuration. No module here
imports TensorFlow at module level, so that ``seedtf train --help`` is fast.
"""
