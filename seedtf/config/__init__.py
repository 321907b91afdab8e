"""The flags of a training run: declared in groups, summed up in ``TrainConfig``, saved and read back.

The groups stand here and not beside the code that they configure, because imports point down: most of
that code lies in ``training/``, above this package, and ``runs/`` between the two needs the whole
configuration. Nothing here imports TensorFlow at module level, so ``seedtf train --help`` prints at
once.
"""
