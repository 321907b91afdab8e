"""Lists the parts of ``seedtf benchmark gpu``, the most important first.

Nothing here imports TensorFlow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from seedtf.errors import UserError

__all__ = ["Part", "choose_parts", "list_parts"]


@dataclass(frozen=True)
class Part:
    """One part of the benchmark, which runs in a process of its own.

    Attributes:
        name: the name of the part, for ``--only``.
        function: the function that the part calls, as ``module:function`` below
            ``seedtf.benchmark.gpu``. It returns JSON values.
        case: the arguments of the function.
        seconds: the time limit of the part.
    """

    name: str
    function: str
    case: dict[str, Any] = field(default_factory=dict)
    seconds: int = 120


def list_parts(model: str, image_size: int, data_dir: str) -> list[Part]:
    """All parts, in the order in which they run.

    Args:
        model: the network of all parts except ``card``, ``pixels`` and ``pipeline``, which use none.
        image_size: side of the images in pixels in the parts that measure times. The parts that compare
            results use fixed sizes.
        data_dir: the folder of images for the runs of ``seedtf train``, or ``sample``.
    """

    def step(name: str, seconds: int = 150, **case: Any) -> Part:
        arguments = {"model": model, "image_size": image_size, **case}
        return Part(name, "speed:measure_step", arguments, seconds)

    flags = [f"--data_dir={data_dir}", "--weights=none", f"--image_size={image_size}"]
    epoch_flags = [*flags, f"--model={model}", "--batch_size=128", "--epochs=4"]
    small = [f"--data_dir={data_dir}", "--weights=none", "--image_size=64", "--batch_size=64"]
    resume_flags = [*small, f"--model={model}", "--epochs=3"]
    return [
        Part("card", "speed:measure_card", {}, 90),
        Part("pixels", "checks:compare_pixels", {}, 90),
        Part("losses", "checks:compare_losses", {"model": model}, 180),
        step("bfloat16", 200),
        step("bfloat16_single_steps", steps_per_execution=1),
        Part("epoch", "runs:measure_epoch", {"flags": epoch_flags}, 240),
        Part("resume", "runs:check_resume", {"flags": [*resume_flags, "--deterministic"]}, 300),
        Part("pipeline", "speed:measure_pipeline", {"image_size": image_size}, 90),
        step("bfloat16_batch_32", batch_size=32),
        step("bfloat16_batch_256", batch_size=256),
        step("float32", precision="float32"),
        step("float16", precision="mixed_float16"),
        step("bfloat16_host", placement="host"),
        step("bfloat16_without_xla", xla=False),
        step("float16_without_xla", precision="mixed_float16", xla=False),
        step("float32_without_xla", precision="float32", xla=False),
        Part(
            "epoch_host", "runs:measure_epoch", {"flags": [*epoch_flags, "--placement=host"]}, 200
        ),
        # Without --deterministic, which is the default of seedtf train.
        Part("resume_default", "runs:check_resume", {"flags": resume_flags}, 240),
    ]


def choose_parts(parts: Sequence[Part], only: str) -> list[Part]:
    """The parts whose names are in the comma-separated list ``only``, in the order of ``parts``.

    If ``only`` is empty, all parts are returned.

    Raises:
        UserError: ``only`` has a name that is not a part.

    Example:
        >>> [part.name for part in choose_parts(list_parts("tiny", 32, "sample"), "pixels,card")]
        ['card', 'pixels']
    """
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    names = [part.name for part in parts]
    for name in wanted:
        if name not in names:
            raise UserError(f"--only={name}: is not a part; pass some of {', '.join(names)}")
    return [part for part in parts if not wanted or part.name in wanted]
