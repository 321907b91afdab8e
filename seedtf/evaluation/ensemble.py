"""Several models that answer as one, by the mean of their probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from seedtf.evaluation.evaluate import Classify, make_classifier

__all__ = ["make_ensemble"]


def make_ensemble(models: Sequence[keras.Model], tta: int = 1) -> Classify:
    """What ``make_classifier`` makes of one model, made of several: the mean of their answers.

    As in Huang et al., Snapshot Ensembles, arXiv 1704.00109, section 3.

    Args:
        models: at least one; all with the same input and the same classes.
        tta: 1, or 8 for the mean over the eight turns and mirror images, too.
    """
    members = [make_classifier(model, tta) for model in models]
    if len(members) == 1:
        return members[0]

    def classify(images: tf.Tensor) -> np.ndarray:
        answers = [member(images) for member in members]
        return np.asarray(np.mean(answers, axis=0, dtype=np.float64), np.float32)

    return classify
