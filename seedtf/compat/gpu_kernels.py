"""Finds the operations of a traced function for which TensorFlow has no GPU kernel.

TensorFlow executes such an operation on the CPU without a warning. At every step it then copies the
inputs of the operation from the GPU, and the outputs back to the GPU. TensorFlow is imported inside the
functions, so that importing this module is fast.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

__all__ = ["ops_without_gpu_kernel"]

# These nodes need no kernel: TensorFlow removes them, or places them on the device of their input.
_NOT_EXECUTED = frozenset({"Placeholder", "_Arg", "_Retval", "NoOp"})


def ops_without_gpu_kernel(function: Any) -> list[str]:
    """The operations of ``function`` that TensorFlow would execute on the CPU.

    Functions that ``function`` calls are searched, too, unless XLA compiles them. Operations that
    TensorFlow's graph optimizer adds later are not found. The machine needs no GPU, but TensorFlow must
    have been built with GPU kernels.

    Args:
        function: a ``ConcreteFunction``.

    Returns:
        Operations with their types, such as ``GatherV2(Taxis=int32, Tindices=int64, Tparams=uint8)``;
        sorted, and without repetitions.

    Tried with TensorFlow 2.21.0; tested by
    ``test_every_operation_of_a_step_without_xla_has_a_gpu_kernel``.
    """
    graph = function.graph.as_graph_def()
    library = {definition.signature.name: definition for definition in graph.library.function}
    found, pending, seen = set(), [graph.node], set()
    while pending:
        for node in pending.pop():
            if node.op not in _NOT_EXECUTED and not _is_compiled(node.attr):
                called = [name for name in _called_functions(node) if name not in seen]
                seen.update(called)
                searched = [name for name in called if _is_searched(library, name)]
                pending += [library[name].node_def for name in searched]
                if not _has_gpu_kernel(node):
                    found.add(_name_with_types(node))
    return sorted(found)


def _is_compiled(attributes: Any) -> bool:
    return "_XlaMustCompile" in attributes and attributes["_XlaMustCompile"].b


def _is_searched(library: Any, name: str) -> bool:
    """Whether ``name`` is the name of a function that XLA does not compile."""
    return name in library and not _is_compiled(library[name].attr)


def _called_functions(node: Any) -> Iterator[str]:
    """The names of the functions that a node calls, and of its operation, which may be a function."""
    yield node.op
    for value in node.attr.values():
        yield from (function.name for function in (value.func, *value.list.func) if function.name)


def _has_gpu_kernel(node: Any) -> bool:
    kernels = _gpu_kernels(node.op)
    return any(
        all(_allows(constraint, node) for constraint in kernel.constraint) for kernel in kernels
    )


def _allows(constraint: Any, node: Any) -> bool:
    """Whether a kernel's constraint on a type attribute allows the types of ``node``."""
    value = node.attr[constraint.name]
    types = value.list.type or [value.type]
    return set(types) <= set(constraint.allowed_values.list.type)


@functools.cache
def _gpu_kernels(op: str) -> list[Any]:
    from tensorflow.python.framework import kernels

    # A kernel of the device type DEFAULT runs on every device type that has no kernel for the
    # operation.
    registered = kernels.get_registered_kernels_for_op(op).kernel
    return [kernel for kernel in registered if kernel.device_type in ("GPU", "DEFAULT")]


def _name_with_types(node: Any) -> str:
    import tensorflow as tf

    types = [
        f"{name}={tf.dtypes.as_dtype(value.type).name}"
        for name, value in sorted(node.attr.items())
        if value.type
    ]
    return f"{node.op}({', '.join(types)})"
