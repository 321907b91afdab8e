"""Opens a study of Optuna, with its database, sampler and pruner."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seedtf.errors import UserError, first_line

__all__ = ["PRUNERS", "import_optuna", "mask_password", "open_study", "storage_errors"]

PRUNERS = ("median", "hyperband", "none")
"""The values of ``--pruner``."""

# How many seconds to wait if another process has locked the SQLite file.
_LOCK_SECONDS = 60
# The median pruner prunes no trial before this many trials have completed.
_TRIALS_BEFORE_PRUNING = 5
# The sampler draws random values until this many trials have completed or been pruned. Before that, it
# has too few results to learn from.
_RANDOM_TRIALS = 10


def import_optuna() -> Any:
    """The module ``optuna``.

    Optuna's log lines below ERROR and its warnings about experimental features are hidden.

    Raises:
        UserError: Optuna is not installed.
    """
    try:
        import optuna  # noqa: PLC0415  It is an optional dependency.
    except ImportError:
        raise UserError(
            "optuna is not installed, and the search needs it: pip install 'seedtf[tune]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def open_study(
    optuna: Any, *, name: str, storage: str, tune_dir: Path, pruner: str, seed: int, epochs: int
) -> Any:
    """Opens the study ``name``; if it does not exist, creates it.

    Args:
        optuna: the module ``optuna``.
        name: the name of the study.
        storage: a database URL; empty for ``<tune_dir>/study.db``.
        tune_dir: an existing folder.
        pruner: one of ``PRUNERS``.
        seed: the seed of the sampler; the same seed draws the same values.
        epochs: the number of epochs of a trial that is not pruned.

    Raises:
        UserError: ``storage`` is not a database URL, or the database cannot be opened.
    """
    url = _database_url(storage, tune_dir)
    masked_url = mask_password(url)
    if "://" not in url:
        raise UserError(
            f"--storage={masked_url}: is not a database URL; pass one such as "
            "sqlite:////shared/study.db or postgresql://user@host/name"
        )
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415  It is installed with Optuna.

    connect_args = {"timeout": _LOCK_SECONDS} if url.startswith("sqlite") else {}
    try:
        return optuna.create_study(
            study_name=name,
            storage=optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": connect_args}),
            sampler=_make_sampler(optuna, seed),
            pruner=_make_pruner(optuna, pruner, epochs),
            direction="minimize",
            load_if_exists=True,
        )
    except (
        ImportError,
        RuntimeError,  # The tables were made by another version of Optuna.
        ValueError,
        SQLAlchemyError,
        optuna.exceptions.OptunaError,
    ) as error:
        raise UserError(
            f"--storage={masked_url}: cannot be used ({_describe_cause(error, url)})"
        ) from error


@contextmanager
def storage_errors(optuna: Any, storage: str, tune_dir: Path) -> Iterator[None]:
    """Turns database errors in the ``with`` block into a UserError.

    The arguments are those of ``open_study``.

    Raises:
        UserError: the database is missing, full, locked for too long or damaged.
    """
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415  It is installed with Optuna.

    url = _database_url(storage, tune_dir)
    try:
        yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        cause = _describe_cause(error, url)
        raise UserError(
            f"--storage={mask_password(url)}: the database failed ({cause}); repeat the same command "
            "to continue"
        ) from error


def mask_password(url: str) -> str:
    """The URL with ``***`` instead of the password, which is before the host or among the options.

    Example:
        >>> mask_password("postgresql://me:secret@host/name")
        'postgresql://me:***@host/name'
    """
    url = re.sub(r"(://[^/:@]*):[^/]*@", r"\1:***@", url)
    return re.sub(r"([?&]password=)[^&]*", r"\1***", url)


def _database_url(storage: str, tune_dir: Path) -> str:
    return storage or f"sqlite:///{tune_dir.resolve() / 'study.db'}"


def _describe_cause(error: BaseException, url: str) -> str:
    """The first line of the error of the database driver; or the driver that has to be installed."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ModuleNotFoundError):
            return f"its Python driver {cause.name} is not installed; pip install it"
        cause = cause.__cause__ or cause.__context__
    # Optuna's own message is not used, because it explains every error by a value that is too long.
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).replace(url, mask_password(url)).strip()
    return first_line(text) if text else type(error).__name__


def _make_sampler(optuna: Any, seed: int) -> Any:
    """Makes a sampler: a tree-structured Parzen estimator (Bergstra et al. 2011).

    A sampler with one seed for the whole search would draw its first values again after each restart.
    So this sampler has a seed for each value, computed from the seed of the search, the number of the
    trial and the name of the flag.
    """

    class Sampler(optuna.samplers.BaseSampler):
        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
            return {}

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
            return {}

        def sample_independent(
            self, study: Any, trial: Any, param_name: str, param_distribution: Any
        ) -> Any:
            sampler = optuna.samplers.TPESampler(
                seed=_sampler_seed(seed, trial.number, param_name), n_startup_trials=_RANDOM_TRIALS
            )
            return sampler.sample_independent(study, trial, param_name, param_distribution)

    return Sampler()


def _sampler_seed(seed: int, trial_number: int, flag: str) -> int:
    digest = hashlib.blake2b(f"{seed} {trial_number} {flag}".encode(), digest_size=4)
    return int.from_bytes(digest.digest(), "little")


def _make_pruner(optuna: Any, name: str, epochs: int) -> Any:
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs)
    if name == "median":
        # In the first quarter of the epochs, no trial is pruned: the loss then depends mostly on the
        # learning-rate schedule, and says little about the values of the flags.
        return optuna.pruners.MedianPruner(
            n_startup_trials=_TRIALS_BEFORE_PRUNING, n_warmup_steps=max(epochs // 4, 1)
        )
    return optuna.pruners.NopPruner()
