"""Records a run in MLflow through its client, which patches nothing of Keras and pickles nothing."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import seedtf
from seedtf.training.trackers.tracker import INTERRUPTED, PROJECT, TrackedRun, Tracker

__all__ = ["MlflowTracker"]

_MAX_PARAMS = 100  # MLflow's limit for one request
# The address of a store without a server starts with one of these.
_LOCAL_PREFIXES = ("sqlite:", "file:", "/")


class MlflowTracker(Tracker):
    """A run in an experiment of MLflow.

    ``MLFLOW_TRACKING_URI``, ``MLFLOW_EXPERIMENT_NAME`` or ``MLFLOW_EXPERIMENT_ID``, and
    ``MLFLOW_RUN_ID`` choose where the run is recorded. Without them it goes to the experiment
    ``seedtf`` of MLflow's default store, a SQLite file or the folder ``mlruns`` in the working folder.
    MLflow's other variables, such as those for credentials, have their usual effect.
    """

    def start(self, run: TrackedRun, saved: Mapping[str, Any]) -> dict[str, Any]:
        run_id_of_user = "" if run.parent_search else os.environ.get("MLFLOW_RUN_ID", "")
        self._connect(saved)
        if run_id := saved.get("run_id") or run_id_of_user:
            self._run_id = run_id
            self._client.update_run(run_id, status="RUNNING")
            steps = [metric.step for metric in self._client.get_metric_history(run_id, "val_loss")]
        else:
            self._run_id = self._create(run)
            steps = []
        if not saved:
            self._log_params(run.flags)
        self.place = f"run {self._run_id} in {re.sub(r'//[^/@]*@', '//', self._uri)}"
        # The address of a server is not saved: it may hold a password, and a resumed run reads it from
        # its environment again.
        uri = self._uri if self._uri.startswith(_LOCAL_PREFIXES) else ""
        return {"run_id": self._run_id, "uri": uri, "last": max(steps, default=0)}

    def reopen(self, run: TrackedRun, saved: Mapping[str, Any]) -> None:
        self._connect(saved)
        self._run_id = saved["run_id"]

    def log_metrics(self, epoch: int, metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        values = [Metric(name, value, now, epoch) for name, value in metrics.items()]
        self._client.log_batch(self._run_id, metrics=values)

    def log_files(self, files: Sequence[Path], prefix: str = "") -> None:
        for path in files:
            self._client.log_artifact(self._run_id, str(path), prefix or None)

    def finish(self, ending: str) -> None:
        if ending:
            states = {INTERRUPTED: "KILLED", "failed": "FAILED"}
            self._client.set_terminated(self._run_id, states.get(ending, "FINISHED"))

    def _connect(self, saved: Mapping[str, Any]) -> None:
        """Connects to the store of the run.

        The default store is in the working folder. A process that continues the run may have
        another working folder, so it takes the address of the store from ``saved``.
        """
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        for name in ("alembic", "mlflow.store.db.utils"):  # they log each table that they create
            logging.getLogger(name).setLevel(logging.WARNING)
        import mlflow

        saved_uri = "" if "MLFLOW_TRACKING_URI" in os.environ else saved.get("uri", "")
        self._uri = saved_uri or mlflow.get_tracking_uri()
        self._client = mlflow.MlflowClient(self._uri)

    def _create(self, run: TrackedRun) -> str:
        tags = {
            "mlflow.source.name": "seedtf tune" if run.search_space is not None else "seedtf train",
            "mlflow.source.type": "LOCAL",
            "seedtf.version": seedtf.__version__,
        }
        if run.parent_search:
            tags["mlflow.parentRunId"] = run.parent_search["run_id"]
        created = self._client.create_run(self._experiment_id(), run_name=run.name, tags=tags)
        return str(created.info.run_id)

    def _experiment_id(self) -> str:
        """The ID of the experiment, which is created if it does not exist."""
        if experiment_id := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return experiment_id
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        if found := self._client.get_experiment_by_name(name):
            return str(found.experiment_id)
        return str(self._client.create_experiment(name))

    def _log_params(self, flags: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(name, str(value)) for name, value in flags.items()]
        for first in range(0, len(params), _MAX_PARAMS):
            self._client.log_batch(self._run_id, params=params[first : first + _MAX_PARAMS])
