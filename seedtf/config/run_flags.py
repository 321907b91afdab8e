"""``RunFlags`` and ``DeviceFlags``: the run folder, and the devices that train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from seedtf.config.data_flags import check_local
from seedtf.config.flags import AUTO, Flags, option
from seedtf.errors import UserError

__all__ = ["NEWEST", "PLACEMENTS", "STRATEGIES", "DeviceFlags", "RunFlags"]

NEWEST = "newest"
"""The value of ``resume`` that means the newest run below ``runs/``; also a bare ``--resume``."""

STRATEGIES = (AUTO, "none", "mirrored", "multi_worker")
PLACEMENTS = (AUTO, "host", "device")


@dataclass(frozen=True)
class RunFlags(Flags):
    """Where a run writes, what it shows, how it resumes and its seed."""

    HEADING: ClassVar[str] = "Run"

    run_dir: str = option(
        "", "New folder for the results; default runs/<date>-<time>-<model>.", alias="out"
    )
    resume: str = option(
        "", "Resume an interrupted run: its folder, or bare for the newest.", bare=NEWEST
    )
    dry_run: bool = option(
        False,
        "Time at most 20 steps, print how long the training would take and how much memory and disk "
        "it needs, and stop.",
    )
    seed: int = option(0, "Root of all randomness, 0 to 2147483647.", low=0, high=2**31 - 1)
    save_minutes: float = option(
        0.0,
        "Also save the state within an epoch whenever this many minutes have passed; 0 saves at the "
        "end of an epoch only.",
        low=0.0,
    )
    tensorboard: bool = option(False, "Also write TensorBoard events to <run_dir>/tensorboard.")
    show: bool = option(False, "Open a window with the live curves where there is a display.")

    def check_together(self) -> None:
        """Raises UserError for flags that exclude each other."""
        super().check_together()
        check_local("run_dir", self.run_dir)
        if self.dry_run and self.resume:
            raise UserError(
                f"--dry_run: times a new training, not --resume={self.resume}; leave one of them out"
            )


@dataclass(frozen=True)
class DeviceFlags(Flags):
    """How the devices share the work, and how exactly they repeat it."""

    HEADING: ClassVar[str] = "Devices"

    strategy: str = option(
        AUTO,
        "Devices that share each batch: one, all of this machine, or those of all machines in "
        "TF_CONFIG; auto takes all there are.",
        choices=STRATEGIES,
    )
    placement: str = option(
        AUTO,
        "Augment in the data pipeline on the host, or inside the train step on the device; auto "
        "takes the device where there is a GPU.",
        choices=PLACEMENTS,
    )
    threads: int = option(
        0,
        "Compute threads, 1 to 1024; the same number gives the same result; 0 for all cores.",
        low=0,
        high=1024,
    )
    deterministic: bool = option(
        False, "Use only operations that repeat to the bit, on a GPU too; slower there."
    )
    sync_bn: bool = option(
        False,
        "Compute the statistics of batch normalization over the whole batch, not over the part of "
        "one device.",
    )
    worker_timeout: int = option(
        30,
        "Seconds without a sign of life after which another worker counts as lost and this one "
        "stops, 5 to 3600.",
        low=5,
        high=3600,
    )
