"""Counts the kernel launches and the moved bytes of a compiled step in XLA's dump of the step.

XLA can write each program that it has compiled, a module, as text in its language HLO.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ModuleCost", "largest_module", "parse_module"]

_ELEMENT_BYTES = {
    **dict.fromkeys(("pred", "s8", "u8"), 1),
    **dict.fromkeys(("s16", "u16", "bf16", "f16"), 2),
    **dict.fromkeys(("s32", "u32", "f32"), 4),
    **dict.fromkeys(("s64", "u64", "f64"), 8),
}
_ARRAY = re.compile(rf"\b({'|'.join(_ELEMENT_BYTES)})\[([0-9,]*)\]")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)")
# Instructions that launch no kernel, because they only name memory.
_WITHOUT_KERNEL = frozenset({"parameter", "constant", "tuple", "get-tuple-element", "bitcast"})


@dataclass(frozen=True)
class ModuleCost:
    """The cost of executing a compiled module once.

    Attributes:
        kernels: number of kernel launches; a loop counts as one launch.
        bytes: bytes that are read and written: the sizes of the operands and results of all kernels.
    """

    kernels: int
    bytes: int


def parse_module(text: str) -> ModuleCost:
    """The cost of a module in XLA's dump for a GPU.

    With several steps per execution, the module has a loop whose body is one step. So if the body of a
    loop has more kernels than the rest of the module, the result is the cost of one step: of executing
    the body once.

    Args:
        text: the content of a file ``*gpu_after_optimizations.txt``.

    Example:
        >>> lines = [
        ...     "ENTRY %main (p: f32[4]) -> f32[2] {",
        ...     "  %p = f32[4]{0} parameter(0)",
        ...     "  ROOT %sum = f32[2]{0} fusion(%p), kind=kLoop, calls=%add",
        ...     "}",
        ... ]
        >>> parse_module("\\n".join(lines))
        ModuleCost(kernels=1, bytes=24)
    """
    computations = _computations(text)
    entry = computations.get("ENTRY", [])
    bodies = [
        _cost(computations[name])
        for line in entry
        if " while(" in line
        for name in re.findall(r"body=%?([\w.\-]+)", line)
        if name in computations
    ]
    return max([_cost(entry), *bodies], key=lambda module: module.kernels)


def largest_module(folder: Path) -> ModuleCost | None:
    """The cost of the module in ``folder`` with the most kernels; None if there is no module."""
    paths = folder.glob("*gpu_after_optimizations.txt")
    modules = [parse_module(path.read_text(encoding="utf-8")) for path in paths]
    return max(modules, key=lambda module: module.kernels, default=None)


def _computations(text: str) -> dict[str, list[str]]:
    """The lines of each computation by its name; the name of the entry computation is ``ENTRY``."""
    computations: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        header = re.match(r"^(ENTRY )?%?([\w.\-]+).*\{\s*$", line)
        if header:
            lines = computations.setdefault("ENTRY" if header[1] else header[2], [])
        else:
            lines.append(line)
    return computations


def _cost(lines: list[str]) -> ModuleCost:
    sizes: dict[str, int] = {}
    num_kernels = num_bytes = 0
    for line in lines:
        instruction = _INSTRUCTION.match(line)
        if instruction is None:
            continue
        name, shape, opcode, rest = instruction.groups()
        sizes[name] = _count_bytes(shape)
        if opcode not in _WITHOUT_KERNEL:
            num_kernels += 1
            operands = re.findall(r"%([\w.\-]+)", rest.split("), ")[0])
            num_bytes += sizes[name] + sum(sizes.get(operand, 0) for operand in operands)
    return ModuleCost(num_kernels, num_bytes)


def _count_bytes(shape: str) -> int:
    """The bytes of an array such as ``f32[2,3]``, or of all arrays of a tuple ``(f32[2,3], s8[])``."""
    return sum(
        _ELEMENT_BYTES[dtype] * math.prod(int(side) for side in filter(None, sides.split(",")))
        for dtype, sides in _ARRAY.findall(shape)
    )
