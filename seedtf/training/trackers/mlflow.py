"""MLflow: a run in an experiment, through the client alone; nothing of Keras is patched or pickled."""

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

_MOST_PARAMS = 100  # in one request
_LOCAL = ("sqlite:", "file:", "/")


class MlflowTracker(Tracker):
    """``MLFLOW_TRACKING_URI``, ``MLFLOW_EXPERIMENT_NAME`` or ``_ID``, and ``MLFLOW_RUN_ID`` are read.

    Without them the run goes to the experiment ``seedtf`` of the SQLite file that MLflow creates in the
    working folder. Its own variables for servers, credentials and repeated requests apply as always.
    """

    def start(self, run: TrackedRun, saved: Mapping[str, Any]) -> dict[str, Any]:
        given = "" if run.study else os.environ.get("MLFLOW_RUN_ID", "")
        self._connect(saved)
        if known := saved.get("run_id") or given:
            self._run_id = known
            self._client.update_run(known, status="RUNNING")
            steps = [each.step for each in self._client.get_metric_history(known, "val_loss")]
        else:
            self._run_id = self._create(run)
            steps = []
        if not saved:
            self._log_params(run.flags)
        self.place = f"run {self._run_id} in {re.sub(r'//[^/@]*@', '//', self._uri)}"
        # The address of a server may hold a password, and the next process has it from its environment.
        uri = self._uri if self._uri.startswith(_LOCAL) else ""
        return {"run_id": self._run_id, "uri": uri, "last": max(steps, default=0)}

    def reopen(self, run: TrackedRun, saved: Mapping[str, Any]) -> None:
        self._connect(saved)
        self._run_id = saved["run_id"]

    def log_metrics(self, epoch: int, metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        values = [Metric(name, value, now, epoch) for name, value in metrics.items()]
        self._client.log_batch(self._run_id, metrics=values)

    def log_files(self, files: Sequence[Path], folder: str = "") -> None:
        for path in files:
            self._client.log_artifact(self._run_id, str(path), folder or None)

    def finish(self, ending: str) -> None:
        if ending:
            states = {INTERRUPTED: "KILLED", "failed": "FAILED"}
            self._client.set_terminated(self._run_id, states.get(ending, "FINISHED"))

    def _connect(self, saved: Mapping[str, Any]) -> None:
        """Connects to the store that holds the run; the default store depends on the working folder."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        for name in ("alembic", "mlflow.store.db.utils"):  # tables that are created are no news
            logging.getLogger(name).setLevel(logging.WARNING)
        import mlflow

        saved_uri = "" if "MLFLOW_TRACKING_URI" in os.environ else saved.get("uri", "")
        self._uri = saved_uri or mlflow.get_tracking_uri()
        self._client = mlflow.MlflowClient(self._uri)

    def _create(self, run: TrackedRun) -> str:
        tags = {
            "mlflow.source.name": "seedtf tune" if run.searched is not None else "seedtf train",
            "mlflow.source.type": "LOCAL",
            "seedtf.version": seedtf.__version__,
        }
        if run.study:
            tags["mlflow.parentRunId"] = run.study["run_id"]
        created = self._client.create_run(self._experiment(), run_name=run.name, tags=tags)
        return str(created.info.run_id)

    def _experiment(self) -> str:
        """The number of the experiment, which is created if there is none of its name."""
        if number := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return number
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        if found := self._client.get_experiment_by_name(name):
            return str(found.experiment_id)
        return str(self._client.create_experiment(name))

    def _log_params(self, flags: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(name, str(value)) for name, value in flags.items()]
        for first in range(0, len(params), _MOST_PARAMS):
            self._client.log_batch(self._run_id, params=params[first : first + _MOST_PARAMS])
