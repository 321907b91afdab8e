"""Imports TensorFlow, after setting environment variables that make it faster, and hides its log."""

from __future__ import annotations

import gc
import importlib.metadata
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from seedtf.compat.keras_settings import override_keras_settings
from seedtf.compat.matplotlib import import_matplotlib
from seedtf.report import report_error

__all__ = [
    "import_tensorflow",
    "set_performance_switches",
    "silent_start",
    "write_xla_modules",
]

# XLA aborts the process if it does not know a flag. So flags of XLA are set only for the TensorFlow
# version with which they were tried.
_TRIED_WITH = "2.21."
# Keras imports these packages if they are installed: for its wrappers of scikit-learn, for data frames
# and for its file editor. seedtf uses none of the three, and importing the packages takes a second.
_NOT_IMPORTED = ("sklearn", "pandas", "IPython")
_XLA_WIDE_VECTORS = "--xla_cpu_prefer_vector_width=512"
_XLA_ONE_THREAD = "--xla_disable_hlo_passes=cpu-parallel-task-assigner"


def import_tensorflow() -> None:
    """Imports TensorFlow with fast kernels, initializes its devices, and hides its log lines.

    Keras gets the settings that seedtf needs; the messages of ``override_keras_settings`` go to stderr.
    Keras cannot import scikit-learn, unless it was imported before, so ``keras.wrappers`` cannot be
    used. Every command that needs TensorFlow calls this function before anything else imports it.

    Tried with TensorFlow 2.15 and 2.21; tested by ``tests/test_tensorflow_env.py``.
    """
    is_first_import = "tensorflow" not in sys.modules
    set_performance_switches()
    import_matplotlib()  # before Keras imports it, which would fail with an unknown MPLBACKEND
    with silent_start(), _without_garbage_collection(), _without_packages(_NOT_IMPORTED):
        notes = override_keras_settings()
        import tensorflow as tf

        tf.config.list_physical_devices("GPU")
    if is_first_import:
        gc.freeze()  # so that garbage collections do not search the objects of the libraries
    for note in notes:
        report_error(note)


def set_performance_switches() -> None:
    """Sets environment variables that make TensorFlow faster, except those that the user has set.

    ``TF_ENABLE_ONEDNN_OPTS=1`` makes TensorFlow compute convolutions with the library oneDNN. By
    default, TensorFlow uses oneDNN only on processors with AVX-512 VNNI. On a processor with AVX2,
    oneDNN halves the time of a train step of ResNet-50.

    ``XLA_FLAGS`` changes two defaults of XLA that slow the augmentation down on a CPU. It is set only
    for TensorFlow 2.21, and does not affect train steps on a CPU, which XLA does not compile by
    default.

    - By default, XLA uses vectors of 256 bits. With the 512 bits of AVX-512, the augmentation takes a
      fifth less time. Other processors are not affected.
    - By default, XLA splits the work on each image among threads. With this split, two cores produce a
      third fewer images per second, because whole batches already keep all threads busy.

    ``TF_USE_CUDNN_BATCHNORM_SPATIAL_PERSISTENT=1`` affects batch normalization of float16 on a GPU
    without XLA. By default, TensorFlow transposes every batch to another layout and back for it.

    Tried with TensorFlow 2.21; ``test_a_version_that_may_not_know_the_xla_flags_does_not_get_them``
    fails when another version gets them.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_USE_CUDNN_BATCHNORM_SPATIAL_PERSISTENT", "1")
    if _tensorflow_version().startswith(_TRIED_WITH):
        os.environ.setdefault("XLA_FLAGS", f"{_XLA_WIDE_VECTORS} {_XLA_ONE_THREAD}")


def write_xla_modules(folder: str) -> None:
    """Makes XLA write every module that it compiles to ``folder``, as text.

    Call it before TensorFlow is imported. It has an effect only with TensorFlow 2.21.

    Tried with TensorFlow 2.21; tested by ``test_xla_writes_its_modules_on_request``.
    """
    set_performance_switches()
    if _tensorflow_version().startswith(_TRIED_WITH):
        flags = f"--xla_dump_to={folder} --xla_dump_hlo_as_text"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()


@contextmanager
def silent_start() -> Iterator[None]:
    """Hides TensorFlow's log until the process ends, and all of stderr inside the ``with`` block.

    The log is hidden by ``TF_CPP_MIN_LOG_LEVEL``, which must be set before the import of TensorFlow.
    But TensorFlow logs some lines before it reads this variable, so the file descriptor of stderr is
    redirected inside the block. If the block raises an error, the hidden lines are shown. If the user
    has set a log level below 3, nothing is hidden.

    Tried with TensorFlow 2.15 and 2.21; tested by
    ``test_stderr_is_hidden_during_the_start_and_shown_if_it_fails``.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3") not in ("3", "4", "5"):
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            yield
        except Exception:
            hidden.seek(0)
            os.write(stderr, hidden.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Pauses the garbage collector, which finds nothing to free during an import."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def _without_packages(names: Iterable[str]) -> Iterator[None]:
    """Makes the import of these packages fail inside the ``with`` block, as if they were not installed.

    A package that is already imported can still be used.
    """
    hidden = [name for name in names if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # makes the import fail
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def _tensorflow_version() -> str:
    try:
        return importlib.metadata.version("tensorflow")
    except importlib.metadata.PackageNotFoundError:  # a custom build, or another distribution
        return ""
