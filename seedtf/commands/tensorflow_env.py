"""How TensorFlow is imported: without its own log lines, with oneDNN's kernels and wide vectors."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import tempfile

__all__ = ["import_tensorflow"]

# XLA ends the process at a flag that it does not know, so only the version it was tried with gets it
_TRIED_WITH = "2.21."
_WIDE_VECTORS = "--xla_cpu_prefer_vector_width=512"
_ONE_THREAD = "--xla_disable_hlo_passes=cpu-parallel-task-assigner"


def import_tensorflow() -> None:
    """Imports TensorFlow and wakes its devices without their log lines on stderr.

    ``TF_CPP_MIN_LOG_LEVEL`` must be set before the import; a user who has set it sees everything. Some
    lines come before that level counts, so the descriptor itself is turned aside meanwhile. What was
    written there is shown after all when the import fails.

    oneDNN computes convolutions on a CPU. TensorFlow takes it by itself only on processors with AVX-512
    VNNI; on one with AVX2 alone a train step of ResNet-50 takes half the time with it. A user who has
    set ``TF_ENABLE_ONEDNN_OPTS`` is obeyed.

    XLA uses half of AVX-512's vectors unless told otherwise; with all of them the augmentation takes a
    fifth less time there, and elsewhere nothing changes. It would also divide single passes over a
    image among threads, which the pipeline keeps busy with whole batches: two cores then make a
    third less. Neither is of use to a train step on a CPU, which is not compiled unless asked for. A
    user's own ``XLA_FLAGS`` are obeyed.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if _tensorflow_version().startswith(_TRIED_WITH):
        os.environ.setdefault("XLA_FLAGS", f"{_WIDE_VECTORS} {_ONE_THREAD}")
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices("GPU")
        except BaseException:
            aside.seek(0)
            os.write(kept, aside.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _tensorflow_version() -> str:
    try:
        return importlib.metadata.version("tensorflow")
    except importlib.metadata.PackageNotFoundError:  # one built or named otherwise
        return ""
