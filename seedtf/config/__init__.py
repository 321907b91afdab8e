"""The flags of a training run: declared in groups, and combined in ``TrainConfig``.

Most groups configure code in ``training/``. They are declared here, because ``runs/`` needs all flags,
too, and ``runs/`` must not import ``training/``. No module here imports TensorFlow at module level, so
that ``seedtf train --help`` is fast.
"""
