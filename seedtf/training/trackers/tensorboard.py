"""Records a run for TensorBoard: event files with scalars, images, and the flags as HParams."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from seedtf.runs.paths import RunPaths
from seedtf.training.trackers.tracker import FINISHED, TrackedRun, Tracker, is_image

__all__ = ["TensorBoardTracker"]


class TensorBoardTracker(Tracker):
    """Writes to ``tensorboard`` in the run folder; ``tensorboard --logdir=runs`` compares all runs.

    A resumed run writes another file into the same folder. The first event of this file, a
    ``SessionLog``, makes TensorBoard forget the epochs that are trained again.
    """

    def start(self, run: TrackedRun, saved: Mapping[str, Any]) -> dict[str, Any]:
        self._open(run)
        # The caller logs every epoch after `last`: those that this process trains again, and completed
        # epochs that are missing in the folder. If the folder already has a SessionLog, the new one
        # tells TensorBoard to drop the events from its step on.
        last = min(saved.get("last", 0), run.last_epoch)
        self._add(last + 1, session_log=self._event_pb2.SessionLog(status="START"))
        if not saved:
            self._log_flags(run)
        self._last_epoch = last
        self._writer.flush()
        return {"last": last}

    def reopen(self, run: TrackedRun, saved: Mapping[str, Any]) -> None:
        self._open(run)
        self._last_epoch = saved.get("last", 0)

    def log_metrics(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self._last_epoch = epoch
        values = [{"tag": name, "simple_value": value} for name, value in metrics.items()]
        self._add(epoch, summary=self._summary_pb2.Summary(value=values))
        self._writer.flush()

    def log_files(self, files: Sequence[Path], prefix: str = "") -> None:
        section = prefix or "images"
        for path in filter(is_image, files):
            with Image.open(path) as image:
                width, height = image.size
            image = self._summary_pb2.Summary.Image(
                width=width, height=height, colorspace=3, encoded_image_string=path.read_bytes()
            )
            value = self._summary_pb2.Summary.Value(tag=f"{section}/{path.stem}", image=image)
            self._add(self._last_epoch, summary=self._summary_pb2.Summary(value=[value]))
        for path in files:
            if path.suffix == ".json":
                # Four spaces before each line make it code in TensorBoard's Markdown.
                text = f"    {path.read_text(encoding='utf-8')}".replace("\n", "\n    ")
                summary = self._text_pb(f"{section}/{path.stem}", text)
                self._add(self._last_epoch, summary=summary)

    def finish(self, ending: str) -> None:
        from tensorboard.plugins.hparams import api_pb2, summary

        # HParams has a session for each training run, but none for a search.
        if ending and not self._is_search:
            is_done = ending == FINISHED
            status = api_pb2.STATUS_SUCCESS if is_done else api_pb2.STATUS_FAILURE
            # `session_end_pb` returns TensorFlow's protobuf class; the writer needs TensorBoard's.
            end = summary.session_end_pb(status).SerializeToString()
            self._add(self._last_epoch, summary=self._summary_pb2.Summary.FromString(end))
        self._writer.close()

    def _open(self, run: TrackedRun) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.plugins.text.summary_v2 import text_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event_pb2, self._summary_pb2, self._text_pb = event_pb2, summary_pb2, text_pb
        self._is_search = run.search_space is not None
        folder = RunPaths(run.folder).tensorboard
        self._writer = EventFileWriter(str(folder))
        self.place = str(folder)

    def _log_flags(self, run: TrackedRun) -> None:
        """Writes the HParams: the flags of a training run, or the names of the flags of a search."""
        from tensorboard.plugins.hparams import api

        if run.search_space is not None:
            columns = [api.HParam(name) for name in run.search_space]
            shown = [api.Metric(name) for name in ("val_loss", "val_accuracy")]
            self._add(0, summary=api.hparams_config_pb(columns, shown))
            return
        flags = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in run.flags.items()
        }
        self._add(0, summary=api.hparams_pb(flags, trial_id=str(run.folder.resolve())))

    def _add(self, step: int, **content: Any) -> None:
        event = self._event_pb2.Event(wall_time=time.time(), step=step, **content)
        self._writer.add_event(event)
