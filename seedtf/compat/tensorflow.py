"""Hides differences between versions of TensorFlow, imports TensorFlow Addons, wraps private names.

Each docstring states the function's purpose, the versions it was tried with and, except for
``silence_first_xla_log``, the test that fails when TensorFlow changes. TensorFlow is imported inside
the functions, so that importing this module is fast.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from seedtf.compat.keras import KERAS_2
from seedtf.errors import missing_addons

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = [
    "DECODES_WEBP",
    "configure_coordination_service",
    "freeze_variables",
    "gpu_memory_limits",
    "has_addons",
    "import_addons",
    "make_all_reduce_max",
    "memory_mapped_tensor",
    "silence_first_xla_log",
    "uninitialized_output",
]

DECODES_WEBP = not KERAS_2
"""Whether TensorFlow's image decoder, which an export uses, supports WebP; TensorFlow 2.15 does not."""

# ResourceHandle::ANONYMOUS_NAME of TensorFlow. With this name, each execution of VarHandleOp creates a
# new variable, which exists as long as its handle.
_ANONYMOUS = "cd2c89b7-88b7-44c8-ad83-06c2a9158347"


def has_addons() -> bool:
    """Whether TensorFlow Addons and the Keras version that it supports are installed.

    Tried with Addons 0.23.0; tested by ``test_addons_are_imported_or_the_error_names_what_to_install``.
    """
    return KERAS_2 and importlib.util.find_spec("tensorflow_addons") is not None


def import_addons(needed_by: str) -> Any:
    """The module ``tensorflow_addons``, imported without its end-of-life warning.

    Args:
        needed_by: the flag and value that need Addons, for the error message.

    Raises:
        UserError: Addons is not installed, or does not support this version of Keras.

    Tried with Addons 0.23.0; tested by ``test_addons_are_imported_or_the_error_names_what_to_install``.
    """
    if not has_addons():
        raise missing_addons(needed_by)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow_addons

    return tensorflow_addons


def silence_first_xla_log() -> None:
    """Hides the line that TensorFlow 2.15 logs at its first XLA compilation.

    TensorFlow 2.15 logs this line once in a process, at every log level. So this function compiles a
    small function while stderr is redirected. It does nothing with other versions, or if
    ``TF_CPP_MIN_LOG_LEVEL`` is not 3, the value that ``silent_start`` sets.

    Tried with TensorFlow 2.15.1, the only version that needs it.
    """
    if not KERAS_2 or os.environ.get("TF_CPP_MIN_LOG_LEVEL") != "3":
        return
    import tensorflow as tf

    sys.stderr.flush()
    stderr_copy, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        tf.function(lambda: tf.constant(0.0), jit_compile=True, autograph=False)()
    finally:
        os.dup2(stderr_copy, 2)
        os.close(stderr_copy)
        os.close(null)


def memory_mapped_tensor(path: str, shape: list[int], dtype: tf.DType) -> tf.Tensor:
    """The content of a file as a tensor, mapped into the memory of the process that executes the op.

    The graph contains only the path, not the pixels, so it can be sent to a worker of a tf.data
    service. ``ImmutableConst``, which TensorFlow does not document, makes this possible.

    Args:
        path: a file exactly as large as the tensor, which the executing process can open.
        shape: static shape of the tensor.
        dtype: dtype of the tensor.

    Tried with TensorFlow 2.21.0; tested by ``test_pixels_can_be_read_from_the_graph_alone``.
    """
    import tensorflow as tf

    return tf.raw_ops.ImmutableConst(dtype=dtype, shape=shape, memory_region_name=path)


def uninitialized_output(
    compute: Callable[[tf.Tensor | None], tf.Tensor], shape: list
) -> tf.Tensor:
    """The result of ``compute``, which XLA does not fill with zeros before it writes the values.

    XLA fills the result of a loop with zeros before the loop, which takes an eighth of the time of the
    augmentation. A loop that writes into a variable overwrites it without filling it first. So
    ``compute`` gets a new float32 variable, whose memory is not initialized. Reading this variable
    afterwards does not copy its memory. If TensorFlow cannot create such a variable, ``compute``
    returns its result as usual.

    Args:
        compute: a function that XLA compiles. Its argument is the resource handle of the variable, to
            which it assigns the whole result; or None, and then it returns the result.
        shape: shape of the result. If a dimension is unknown, the variable is not used.

    Returns:
        float32 of ``shape``, on the CPU.

    Tried with TensorFlow 2.15.1 and 2.21.0; tested by ``test_a_variable_is_created_for_each_call``.
    """
    if None in shape or not _creates_anonymous_variables():
        return compute(None)
    import tensorflow as tf

    with tf.device("/cpu:0"):
        variable = _anonymous_variable(shape)
        memory = tf.raw_ops.Empty(shape=shape, dtype=tf.float32, init=False)
        tf.raw_ops.AssignVariableOp(resource=variable, value=memory)
        done = compute(variable)
        with tf.control_dependencies([done]):
            result = tf.raw_ops.ReadVariableOp(resource=variable, dtype=tf.float32)
    return tf.ensure_shape(result, shape)


def _anonymous_variable(shape: list) -> tf.Tensor:
    import tensorflow as tf

    return tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=shape, shared_name=_ANONYMOUS)


@functools.cache
def _creates_anonymous_variables() -> bool:
    """Whether TensorFlow creates a new variable for each use of the name ``_ANONYMOUS``.

    If all uses shared one variable, batches that are computed at the same time would overwrite each
    other.
    """
    import tensorflow as tf

    with tf.init_scope(), tf.device("/cpu:0"):
        first, second = _anonymous_variable([]), _anonymous_variable([])
        tf.raw_ops.AssignVariableOp(resource=first, value=tf.constant(0.0))
        return not bool(tf.raw_ops.VarIsInitializedOp(resource=second))


def configure_coordination_service(roles: Sequence[str], heartbeat_seconds: int) -> None:
    """Sets how long TensorFlow's coordination service waits for the heartbeat of a worker.

    Call this before ``MultiWorkerMirroredStrategy`` is created, because the strategy by itself sets ten
    seconds. TensorFlow has no public way to change this time.

    Args:
        roles: the role of each process, ``chief`` or ``worker``. The first process runs the service.
        heartbeat_seconds: seconds without a heartbeat after which a worker is considered lost.

    Raises:
        RuntimeError: TensorFlow has already computed something in this process.

    Tried with TensorFlow 2.21.0; tested by
    ``test_a_signal_and_a_lost_worker_stop_all_and_the_resumed_run_is_equal`` with ``SEEDTF_HANG=1``.
    """
    import tensorflow as tf
    from tensorflow.python.eager import context

    jobs = tf.compat.v1.ConfigProto().experimental.coordination_config.coordinated_job_list
    for role in dict.fromkeys(roles):
        jobs.add(name=role, num_tasks=roles.count(role))
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader=f"/job:{roles[0]}/replica:0/task:0",
        coordinated_jobs=list(jobs),
        heartbeat_timeout_in_ms=1000 * heartbeat_seconds,
    )


# TensorFlow numbers the groups of its own collectives from 1, so this number is not in use.
_COLLECTIVE_GROUP = 1_000_003


@functools.cache
def make_all_reduce_max(length: int, workers: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function that takes the elementwise maximum of a vector over all workers.

    ``tf.distribute`` would reduce values on the devices of the replicas, where the reduction waits for
    the queued train steps. So the raw collective operation is called on the CPU. It needs a group key
    that TensorFlow itself does not use.

    Args:
        length: the length of the vector. It also identifies the collective operation, so that calls
            for vectors of different lengths do not wait for each other.
        workers: the number of worker processes, all of which have to call the function.

    Returns:
        A function from float64 ``[length]`` to float64 ``[length]``. On each worker it returns when all
        workers have called it.

    Tried with TensorFlow 2.21.0; tested by
    ``test_all_workers_end_with_the_weights_of_one_process``.
    """
    import tensorflow as tf

    @tf.function(autograph=False)
    def all_reduce_max(values: tf.Tensor) -> tf.Tensor:
        with tf.device("/cpu:0"):
            return tf.raw_ops.CollectiveReduceV2(
                input=values,
                group_size=workers,
                group_key=_COLLECTIVE_GROUP,
                instance_key=length,
                ordering_token=[],
                merge_op="Max",
                final_op="Id",
            )

    return all_reduce_max


def gpu_memory_limits() -> list[int]:
    """The bytes that TensorFlow may allocate on each GPU; ``[]`` without a GPU.

    TensorFlow's public functions return only how many bytes are allocated now, and the peak so far.

    Tried with TensorFlow 2.21.0; tested by
    ``test_without_a_gpu_no_memory_limit_is_known``.
    """
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        return []
    from tensorflow.python.client import device_lib

    devices = device_lib.list_local_devices()
    return [device.memory_limit for device in devices if device.device_type == "GPU"]


def freeze_variables(function: Any) -> Any:
    """A copy of a ``ConcreteFunction`` with all variables and captured constants as graph constants.

    tf2onnx can freeze variables by itself, but it turns captured constants, such as the mean of
    ``keras.layers.Normalization``, into inputs of the graph.

    Tried with TensorFlow 2.15.1 and 2.21.0; tested by ``test_an_onnx_file_keeps_names_and_constants``
    and ``test_small_networks_have_constants_and_large_ones_variables``.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    return convert_variables_to_constants_v2(function)
