"""``seedtf ensemble RUN…``: makes an ensemble that averages the predictions of several runs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from seedtf.commands.arguments import parse_config
from seedtf.compat.tensorflow_env import import_tensorflow
from seedtf.config.flags import Flags, option
from seedtf.errors import UserError
from seedtf.report import report, report_result

__all__ = ["EnsembleConfig", "run"]

POSITIONALS = ("runs...",)


@dataclass(frozen=True)
class EnsembleConfig(Flags):
    """The runs and the flags of ``seedtf ensemble``."""

    runs: tuple[str, ...] = option(
        (), "Two or more folders; each is the folder of a run or of seedtf folds."
    )
    out: str = option("", "New folder of the ensemble, which predict, evaluate and export accept.")
    equal: bool = option(False, "Give all runs the same weight, instead of fitting the weights.")
    batch_size: int = option(64, "Images in a batch, 1 or more.", low=1)


def run(arguments: list[str]) -> int:
    """Writes the ensemble, prints its weights and returns the exit code."""
    config = parse_config(EnsembleConfig, "ensemble", arguments, POSITIONALS)
    if not config.out:
        raise UserError("--out is missing; pass a new folder for the ensemble")
    import_tensorflow()
    from seedtf.evaluation.ensemble import MIN_IMAGES, make_weighted_ensemble

    ensemble = make_weighted_ensemble(
        config.runs, config.out, equal_weights=config.equal, batch_size=config.batch_size
    )
    num_images = ensemble.images
    for number, (member, weight) in enumerate(zip(ensemble.members, ensemble.weights, strict=True)):
        accuracy = f", accuracy {ensemble.accuracies[number]:.4f}" if num_images else ""
        report("member", f"weight {weight:.3f}{accuracy}: {member}")
    if num_images:
        report(
            "fitted",
            f"on {num_images:,} images that no member has trained on; the ensemble's accuracy on "
            f"them is {ensemble.accuracies[-1]:.4f}",
        )
    else:
        reason = (
            "as requested"
            if config.equal
            else f"because the members share {ensemble.shared:,} images that none of them trained on, "
            f"and {MIN_IMAGES} are needed; for fitted weights, train them with the same --split_csv"
        )
        report("weights", f"equal, {reason}")
    report("ensemble", config.out)
    report_result(json.dumps({"out": config.out, **asdict(ensemble)}))
    return 0
