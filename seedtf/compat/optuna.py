"""The only private name of Optuna that seedtf uses."""

from __future__ import annotations

from typing import Any

__all__ = ["reopen_trial"]


def reopen_trial(study: Any, frozen: Any) -> Any:
    """An interrupted trial as an ``optuna.trial.Trial``, so that the trial can continue.

    A ``Trial`` is made from the ID of the trial in Optuna's storage. A ``FrozenTrial`` has this ID only
    as a private attribute.

    Args:
        study: the ``optuna.study.Study`` that the trial belongs to.
        frozen: the interrupted trial, an ``optuna.trial.FrozenTrial`` in the state RUNNING.

    Tried with Optuna 4.9.0 and 5.0.0; tested by ``tests/test_tune.py``.
    """
    import optuna

    return optuna.trial.Trial(study, frozen._trial_id)
