"""``seedtf export RUN``: a run as a folder that a server loads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seedtf.commands.arguments import parse_config
from seedtf.commands.tensorflow_env import import_tensorflow
from seedtf.config.flags import option

if TYPE_CHECKING:
    from seedtf.export.export import Exported

__all__ = ["EXIT_INCOMPLETE", "ExportConfig", "run"]

EXIT_INCOMPLETE = 3
"""The SavedModel is there, but another format that was asked for did not pass its comparison."""


@dataclass(frozen=True)
class ExportConfig:
    """The run and the flags of ``seedtf export``."""

    run: str = option("", "Folder of a run.")
    out: str = option("", "Folder of versions to add one to; empty takes RUN/export.")
    format: str = option(
        "saved_model",
        "Formats, comma between: saved_model (always written), litert, litert_int8, onnx.",
    )
    data_dir: str = option(
        "", "Labelled images to compare on; empty takes the run's validation images."
    )
    labels_csv: str = option("", "Table with the columns file and label for --data_dir.")


def run(arguments: list[str]) -> int:
    """Exports and returns the exit code."""
    config = parse_config(ExportConfig, "export", arguments, words=("run",))
    import_tensorflow()
    from seedtf.export.export import export_run
    from seedtf.export.formats import parse_formats
    from seedtf.runs.open import load_run, open_labelled, open_validation
    from seedtf.runs.paths import RunPaths

    formats = parse_formats(config.format)
    found = load_run(config.run)
    if config.data_dir:
        store, records = open_labelled(found, config.data_dir, config.labels_csv)
    else:
        store, records = open_validation(found)
    out = Path(config.out) if config.out else RunPaths(found.run_dir).export
    exported = export_run(found, out, store, records, formats)
    _show(exported)
    return EXIT_INCOMPLETE if exported.refused else 0


def _show(exported: Exported) -> None:
    from seedtf.export.parity import INT8_WARNING

    print(f"export    {exported.folder}")
    source = "" if exported.temperature_fitted else " (none fitted; seedtf evaluate fits one)"
    print(f"scaled    temperature {exported.temperature:g}{source}")
    for row in exported.rows:
        line = f"{row.format}: {row.summary} ({row.runtime})"
        if row.fault:
            print(f"not kept  {row.format}: {row.fault}")
        elif row.warning:
            print(f"warning   {line}; below {INT8_WARNING:.0%}")
        else:
            print(f"checked   {line}")
    print(f"RESULT {exported.as_json()}", flush=True)
