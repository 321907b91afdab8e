"""``RunFlags`` and ``DeviceFlags``: the run folder with its seed and trackers, and the devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from seedtf.config.data_flags import check_local
from seedtf.config.flags import AUTO, Flags, option
from seedtf.errors import UserError

__all__ = [
    "CLUSTERS",
    "NEWEST",
    "PLACEMENTS",
    "STRATEGIES",
    "TRACKERS",
    "DeviceFlags",
    "RunFlags",
]

NEWEST = "newest"
"""The value of ``resume`` that ``--resume`` without a value sets."""

STRATEGIES = (AUTO, "none", "mirrored", "multi_worker")
CLUSTERS = (AUTO, "tf_config", "slurm")
PLACEMENTS = (AUTO, "host", "device")
TRACKERS = ("mlflow", "wandb", "tensorboard", "trackio", "dvclive")


@dataclass(frozen=True)
class RunFlags(Flags):
    """Run folder, resuming, trackers, display and seed."""

    HEADING: ClassVar[str] = "Run"

    run_dir: str = option(
        "", "New folder for the results; default runs/<date>-<time>-<model>.", alias="out"
    )
    resume: str = option(
        "",
        "Folder of an interrupted run to resume. --resume without a value resumes the run in "
        "--run_dir; if --run_dir is not set, it resumes the newest run.",
        bare=NEWEST,
    )
    continue_from: str = option(
        "",
        "Folder of a finished run: starts a new run with the flags, split and best weights of the "
        "finished run, but with a new optimizer. Flags on the command line replace its flags.",
        alias="continue",
    )
    dry_run: bool = option(
        False,
        "Do not train, but time at most 20 steps and print how much time, memory and disk space the "
        "training would take.",
    )
    seed: int = option(0, "Seed of all random numbers, 0 to 2147483647.", low=0, high=2**31 - 1)
    save_minutes: float = option(
        0.0,
        "Also save the training state within an epoch, when this many minutes have passed since the "
        "last save; 0 saves it only at the end of epochs, and when a signal or the time limit stops "
        "the training.",
        low=0.0,
    )
    track: str = option(
        "",
        f"Trackers that also record the run, separated by commas: {', '.join(TRACKERS)}.",
    )
    tensorboard: bool = option(
        False, "Also write TensorBoard events.", replaced_by="track=tensorboard"
    )
    show: bool = option(False, "Open a window with the live curves if there is a display.")

    def check_together(self) -> None:
        """Raises UserError for flags that are invalid or contradict each other."""
        super().check_together()
        check_local("run_dir", self.run_dir)
        self._normalize_trackers()
        if self.dry_run and self.resume:
            raise UserError(
                f"--dry_run: times a new training, not --resume={self.resume}; leave one of them out"
            )

    @property
    def trackers(self) -> tuple[str, ...]:
        """The names of the trackers in ``track``."""
        return tuple(filter(None, self.track.split(",")))

    def _normalize_trackers(self) -> None:
        """Removes spaces and repeated names from ``track``, and checks the names.

        The former flag ``tensorboard`` is converted: if it is set, ``track`` gets this name, and the
        flag becomes False.
        """
        names = [name.strip().lower() for name in self.track.split(",")]
        names += ["tensorboard"] if self.tensorboard else []
        for name in filter(None, names):
            if name not in TRACKERS:
                raise UserError(f"--track={name}: choose from {', '.join(TRACKERS)}")
        object.__setattr__(self, "track", ",".join(dict.fromkeys(filter(None, names))))
        object.__setattr__(self, "tensorboard", False)


@dataclass(frozen=True)
class DeviceFlags(Flags):
    """Distribution over devices, threads and reproducibility."""

    HEADING: ClassVar[str] = "Devices"

    strategy: str = option(
        AUTO,
        "Devices among which each batch is divided: one device (none), all devices of this machine "
        "(mirrored), or all devices of all machines of the cluster (multi_worker); auto uses all "
        "available devices.",
        choices=STRATEGIES,
    )
    cluster: str = option(
        AUTO,
        "Where the machines of a cluster are named: in the environment variable TF_CONFIG (tf_config), "
        "or in the variables that srun sets (slurm). auto uses TF_CONFIG if it is set; if it is not, "
        "and srun has started several tasks, auto uses slurm.",
        choices=CLUSTERS,
    )
    placement: str = option(
        AUTO,
        "Where images are augmented: in the input pipeline (host) or inside the train step (device); "
        "auto chooses device if there is a GPU, --augment_impl is fused and --data_service is not set.",
        choices=PLACEMENTS,
    )
    steps_per_execution: int = option(
        0,
        "Training steps that the host starts with one call, 1 to 1000. 0 chooses 10 on a single GPU "
        "that uses XLA and holds all images in its memory, and 1 in all other cases.",
        low=0,
        high=1000,
    )
    threads: int = option(
        0,
        "Compute threads, 1 to 1024, or 0 for one per core; the same number gives the same results.",
        low=0,
        high=1024,
    )
    deterministic: bool = option(
        False, "Use only operations with bit-reproducible results; this is slower on a GPU."
    )
    sync_bn: bool = option(
        False,
        "Compute the statistics of batch normalization over the whole batch, instead of separately "
        "over the images on each device.",
    )
    worker_timeout: int = option(
        30,
        "Seconds without a heartbeat after which another worker is considered lost and this one "
        "stops, 5 to 3600.",
        low=5,
        high=3600,
    )
