"""``seedtf demo EXPORT``: shows a page in the browser that classifies one image at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seedtf.commands.arguments import parse_config
from seedtf.compat.tensorflow_env import import_tensorflow
from seedtf.config.flags import AUTO, Flags, option
from seedtf.report import report

__all__ = ["DemoConfig", "run"]

POSITIONALS = ("export",)


@dataclass(frozen=True)
class DemoConfig(Flags):
    """The model and the flags of ``seedtf demo``."""

    export: str = option("", "Folder of an export, or of a run.")
    threshold: float | str = option(
        AUTO,
        "Confidence below which an answer is rejected, 0 to 1; auto reads it from the report of the "
        "run.",
        low=0.0,
        high=1.0,
    )
    host: str = option(
        "127.0.0.1",
        "Address that the page listens on; 0.0.0.0 makes it visible to the whole network.",
    )
    port: int = option(
        0, "Port of the page, 1 to 65535; 0 takes the first free one from 7860.", low=0, high=65535
    )
    share: bool = option(False, "Make the page public for a week through a server of Gradio.")


def run(arguments: list[str]) -> int:
    """Shows the page until Ctrl-C and returns the exit code."""
    config = parse_config(DemoConfig, "demo", arguments, POSITIONALS)
    from seedtf.evaluation.demo_page import import_gradio, make_page, start_page

    gradio = import_gradio()  # before TensorFlow, which takes seconds to import
    import_tensorflow()
    from seedtf.evaluation.demo import Demo

    demo = Demo(config.export, None if config.threshold == AUTO else float(config.threshold))
    page = make_page(gradio, demo.answer, f"seedtf: {Path(config.export).resolve().name}")
    report("threshold", "none" if demo.threshold is None else f"{demo.threshold:.4f}")
    url = start_page(gradio, page, host=config.host, port=config.port, share=config.share)
    report("demo", f"{url} (Ctrl-C ends it)")
    page.block_thread()  # until Ctrl-C
    return 0
