"""Optuna's part of a search: study, storage, sampler and pruner; imported when a search begins."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seedtf.config.train_config import TrainConfig
from seedtf.errors import UserError
from seedtf.runs.saved_config import RESUME_MAY_CHANGE
from seedtf.tuning.space import Dimension, first_values

__all__ = [
    "PRUNERS",
    "check_same_search",
    "import_optuna",
    "importances",
    "masked",
    "open_study",
    "storage_errors",
    "suggest",
]

PRUNERS = ("median", "hyperband", "none")

# another process may hold the SQLite file while it writes
_LOCK_SECONDS = 60
# trials that the median pruner, and the sampler before it leaves chance, wait for
_FIRST_PRUNED, _FIRST_GUIDED = 5, 10
# completed trials below which nothing can be said about importance
_FEWEST = 4


def import_optuna() -> Any:
    """The module ``optuna``, told to keep its log lines and its notices about stability to itself.

    Raises:
        UserError: it is not installed.
    """
    try:
        import optuna  # noqa: PLC0415  optional
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
    """The study ``name``, made where it is not there.

    Args:
        optuna: the module.
        name: of the study.
        storage: a database URL; empty for ``<tune_dir>/study.db``.
        tune_dir: an existing folder.
        pruner: one of ``PRUNERS``.
        seed: root of the sampler's randomness.
        epochs: of a whole trial.

    Raises:
        UserError: the database cannot be opened.
    """
    url = _url(storage, tune_dir)
    shown = masked(url)
    if "://" not in url:
        raise UserError(
            f"--storage={shown}: is no database URL; pass one such as sqlite:////shared/study.db or "
            "postgresql://user@host/name"
        )
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415  Optuna brings it

    patience = {"timeout": _LOCK_SECONDS} if url.startswith("sqlite") else {}
    try:
        return optuna.create_study(
            study_name=name,
            storage=optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": patience}),
            sampler=_sampler(optuna, seed),
            pruner=_pruner(optuna, pruner, epochs),
            direction="minimize",
            load_if_exists=True,
        )
    except (
        ImportError,
        RuntimeError,  # a schema of another version of Optuna
        ValueError,
        SQLAlchemyError,
        optuna.exceptions.OptunaError,
    ) as error:
        raise UserError(f"--storage={shown}: cannot be used ({_cause(error, url)})") from error


@contextmanager
def storage_errors(optuna: Any, storage: str, tune_dir: Path) -> Iterator[None]:
    """Inside, a database that fails becomes a line; ``storage`` and ``tune_dir`` as in ``open_study``.

    Raises:
        UserError: the database is gone, full, locked for too long or damaged.
    """
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415  Optuna brings it

    url = _url(storage, tune_dir)
    try:
        yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        raise UserError(
            f"--storage={masked(url)}: lost ({_cause(error, url)}); go on with the same command"
        ) from error


def masked(url: str) -> str:
    """``url`` without the password that it may hold, before the host or among the options."""
    url = re.sub(r"(://[^/:@]*):[^/]*@", r"\1:***@", url)
    return re.sub(r"([?&]password=)[^&]*", r"\1***", url)


def suggest(trial: Any, dimension: Dimension) -> Any:
    """What the trial takes for a dimension; the same again where it has been asked before."""
    if dimension.choices:
        return trial.suggest_categorical(dimension.name, dimension.choices)
    return trial.suggest_float(
        dimension.name,
        dimension.low,
        dimension.high,
        step=dimension.step or None,
        log=not dimension.step,
    )


def check_same_search(study: Any, config: TrainConfig, space: list[Dimension]) -> None:
    """Notes the fixed flags and the ranges in a new study, and its first trial: the defaults.

    A study without a trial that ran, or runs, counts as new. Flags that change no number, such as
    where the data lies, may differ from machine to machine.

    Raises:
        UserError: the study was begun with others.
    """
    names = {each.name for each in space}
    flags = {
        k: v for k, v in config.as_dict().items() if k not in RESUME_MAY_CHANGE and k not in names
    }
    ranges = {each.name: str(each) for each in space}
    states = {trial.state.name for trial in study.get_trials(deepcopy=False)}
    if states & {"RUNNING", "COMPLETE", "PRUNED"}:
        _compare(study, json.loads(json.dumps(flags)), ranges)
        return
    study.set_user_attr("flags", flags)
    study.set_user_attr("ranges", ranges)
    if "WAITING" not in states:
        study.enqueue_trial(first_values(space, config))


def importances(optuna: Any, study: Any, space: Iterable[Dimension]) -> dict[str, float]:
    """Each flag's share, 0 to 1, in what parts the best tenth of the completed trials from the others.

    PED-ANOVA (Watanabe, Bansal, Hutter 2023). Empty while there are too few trials to tell.
    """
    states = (optuna.trial.TrialState.COMPLETE,)
    if len(study.get_trials(deepcopy=False, states=states)) < _FEWEST:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    names = [each.name for each in space]
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator, params=names))


def _compare(study: Any, flags: Mapping[str, Any], ranges: Mapping[str, str]) -> None:
    saved = study.user_attrs.get("flags", {})
    searched = study.user_attrs.get("ranges", {})
    remedy = "leave it as it was, or begin another search with --study and --tune_dir"
    for name, value in flags.items():
        if name in saved and saved[name] != value:
            raise UserError(
                f"--{name}={value}: the study {study.study_name!r} has {saved[name]!r}; {remedy}"
            )
    if searched != ranges:
        raise UserError(
            f"--search={','.join(ranges)}: the study {study.study_name!r} searches "
            f"{', '.join(searched.values())}; {remedy}"
        )


def _sampler(optuna: Any, seed: int) -> Any:
    """Tree-structured Parzen estimators (Bergstra et al. 2011), drawing by (seed, trial, flag) alone.

    One sampler that lives through the search would draw its first values again after each restart.
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
                seed=_draw_seed(seed, trial.number, param_name), n_startup_trials=_FIRST_GUIDED
            )
            return sampler.sample_independent(study, trial, param_name, param_distribution)

    return Sampler()


def _draw_seed(seed: int, number: int, name: str) -> int:
    digest = hashlib.blake2b(f"{seed} {number} {name}".encode(), digest_size=4)
    return int.from_bytes(digest.digest(), "little")


def _pruner(optuna: Any, name: str, epochs: int) -> Any:
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs)
    if name == "median":
        # the first quarter says more about the start of the schedule than about its end
        return optuna.pruners.MedianPruner(
            n_startup_trials=_FIRST_PRUNED, n_warmup_steps=max(epochs // 4, 1)
        )
    return optuna.pruners.NopPruner()


def _url(storage: str, tune_dir: Path) -> str:
    return storage or f"sqlite:///{tune_dir.resolve() / 'study.db'}"


def _cause(error: BaseException, url: str) -> str:
    """The first line of the driver's own error, or what to install where a driver is missing."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ModuleNotFoundError):
            return f"Python's driver {cause.name} for it is not installed; pip install it"
        cause = cause.__cause__ or cause.__context__
    # of itself Optuna says of every error that a value may be too long
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).replace(url, masked(url)).strip().splitlines()
    return lines[0] if lines else type(error).__name__
