"""``seedtf export RUN``: exports a run as a folder that a model server can load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seedtf.commands.arguments import parse_config
from seedtf.compat.tensorflow_env import import_tensorflow
from seedtf.config.data_flags import (
    FILE_COLUMN_HELP,
    LABEL_COLUMN_HELP,
    LABELS_CSV_HELP,
    LAYOUT_FLAGS,
    LAYOUTS,
    SPLIT_COLUMN_HELP,
    check_has_data_dir,
    check_layout,
)
from seedtf.config.flags import AUTO, Flags, option
from seedtf.data.columns import Columns
from seedtf.report import report, report_result, warn

if TYPE_CHECKING:
    from seedtf.export.export import Exported

__all__ = ["EXIT_INCOMPLETE", "ExportConfig", "run"]

POSITIONALS = ("run",)

EXIT_INCOMPLETE = 3
"""Exit code if the SavedModel was written, but the predictions of another format differ from those of
the SavedModel too much to keep this format."""


@dataclass(frozen=True)
class ExportConfig(Flags):
    """The run and the flags of ``seedtf export``."""

    run: str = option("", "Folder of a run, or a .keras file in it.")
    out: str = option("", "Folder to which a new version is added; default RUN/export.")
    format: str = option(
        "saved_model",
        "Formats, separated by commas: saved_model (always written), litert, litert_int8, onnx.",
    )
    heatmap: bool = option(
        False,
        "Add the output heatmap: how much each place of an image contributes to the best class.",
    )
    max_pixels: int = option(
        0,
        "Largest width × height of an image that the SavedModel decodes. A small value limits what a "
        "request can cost.",
        low=0,
        default_text="that of the run",
    )
    data_dir: str = option(
        "",
        "Folder of labelled images to compare the formats on. By default, the validation images of the "
        "run are used.",
    )
    labels_csv: str = option("", LABELS_CSV_HELP)
    file_column: str = option("", FILE_COLUMN_HELP)
    label_column: str = option("", LABEL_COLUMN_HELP)
    split_column: str = option(
        "", f"{SPLIT_COLUMN_HELP} The formats are compared on its test rows."
    )
    layout: str = option(AUTO, "Layout of --data_dir, as for seedtf train.", choices=LAYOUTS)

    def check_together(self) -> None:
        """Raises UserError for flags that are invalid or do not fit together."""
        super().check_together()
        check_layout(self)
        table_flags = {name: getattr(self, name) for name in ("labels_csv", *LAYOUT_FLAGS)}
        check_has_data_dir(self.data_dir, **table_flags)


def run(arguments: list[str]) -> int:
    """Exports the run and returns the exit code: 0, or 3 if a requested format was not kept."""
    config = parse_config(ExportConfig, "export", arguments, POSITIONALS)
    import_tensorflow()
    from seedtf.export.export import export_run
    from seedtf.export.formats import parse_formats
    from seedtf.runs.open import load_run, open_labelled, open_validation
    from seedtf.runs.paths import RunPaths

    formats = parse_formats(config.format)
    source = load_run(config.run)
    if config.data_dir:
        columns = Columns(config.file_column, config.label_column, config.split_column)
        store, records = open_labelled(
            source, config.data_dir, config.labels_csv, columns, config.layout
        )
    else:
        store, records = open_validation(source)
    out = Path(config.out) if config.out else RunPaths(source.run_dir).export
    exported = export_run(
        source,
        out,
        store,
        records,
        formats,
        heatmap=config.heatmap,
        max_pixels=config.max_pixels,
    )
    _report_export(exported)
    return EXIT_INCOMPLETE if exported.left_out else 0


def _report_export(exported: Exported) -> None:
    from seedtf.export.parity import INT8_WARNING

    report("export", str(exported.folder))
    hint = " (no temperature was fitted; seedtf evaluate fits one for a single run)"
    note = "" if exported.temperature_fitted else hint
    report("scaled", f"temperature {exported.temperature:g}{note}")
    for row in exported.rows:
        line = f"{row.format}: {row.summary} ({row.runtime})"
        if row.fault:
            report("not kept", f"{row.format}: {row.fault}")
        elif row.needs_warning:
            warn(f"{line}; the agreement is below {INT8_WARNING:.0%}")
        else:
            report("checked", line)
    report_result(exported.as_json())
