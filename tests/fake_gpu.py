"""Stub CUDA libraries that pretend to be GPUs, and the environment in which TensorFlow loads them."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["build", "environment", "missing_requirement", "read_counters"]

# The libraries that TensorFlow 2.21 loads. If one of them is missing, TensorFlow sees no GPU. Here,
# every name is a link to libfake_gpu.so.
_NAMES = (
    *("libcuda.so.1", "libnvidia-ml.so.1", "libcudart.so.12", "libcublas.so.12"),
    *("libcublasLt.so.12", "libcufft.so.11", "libcusolver.so.11", "libcusparse.so.12"),
    *("libcudnn.so.9", "libnccl.so.2"),
)
# The members of the struct Counts in fake_gpu.c, in their order: launches of kernels, launches of CUDA
# graphs, and copies to the host with their bytes, by all threads; then the copies to the host and the
# waits of the main thread alone.
_FIELDS = ("kernels", "graphs", "to_host", "to_host_bytes", "main_to_host", "main_waits")
# No test measures time on these libraries, so XLA need not optimize.
_XLA_FLAGS = (
    "--xla_gpu_autotune_level=0 --xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true --xla_gpu_disable_gpuasm_optimizations=true"
)


def missing_requirement() -> str:
    """What this machine lacks for a training on the fake GPUs; empty if it lacks nothing."""
    import tensorflow as tf

    if not tf.test.is_built_with_cuda():
        return "this build of TensorFlow has no GPU kernels"
    if shutil.which("gcc") is None:
        return "gcc is not installed"
    return "" if _find_cuda() else "ptxas and libdevice.10.bc are not installed"


def build(folder: Path) -> Path:
    """Compiles the stub libraries into ``folder``, in about a second, and returns the folder."""
    library = folder / "libfake_gpu.so"
    source = Path(__file__).with_suffix(".c")
    command = ["gcc", "-O1", "-w", "-shared", "-fPIC", "-o", str(library), str(source)]
    subprocess.run(command, check=True)
    for name in _NAMES:
        (folder / name).symlink_to(library.name)
    return folder


def environment(libraries: Path, *, gpus: int, dump: Path) -> dict[str, str]:
    """The environment variables of a process that trains on the fake GPUs.

    Args:
        libraries: the folder that ``build`` returned.
        gpus: the number of fake GPUs.
        dump: the folder to which XLA writes the modules of the train step and the network, as text.
    """
    folder = _find_cuda()
    assert folder is not None
    flags = (
        f"--xla_gpu_cuda_data_dir={folder} --xla_dump_to={dump} --xla_dump_hlo_as_text "
        "--xla_dump_hlo_module_re=(train_step|network).*"
    )
    return {
        **os.environ,
        "LD_LIBRARY_PATH": str(libraries),
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "FAKE_GPUS": str(gpus),
        "XLA_FLAGS": f"{flags} {_XLA_FLAGS}",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, range(gpus))),
    }


def read_counters() -> dict[str, int]:
    """The launches, copies and waits that the stub driver has counted in this process so far."""
    values = (ctypes.c_long * len(_FIELDS))()
    ctypes.CDLL("libcuda.so.1").fake_counts(values)
    return dict(zip(_FIELDS, values, strict=True))


def _find_cuda() -> Path | None:
    """The folder of a CUDA toolkit with ptxas and libdevice, or None."""
    wheels = [Path(each) / "nvidia" / "cuda_nvcc" for each in sys.path]
    installed = [Path("/usr/local/cuda"), *sorted(Path("/usr/local").glob("cuda-*"), reverse=True)]
    for folder in (*wheels, *installed):
        if (folder / "bin/ptxas").exists() and (folder / "nvvm/libdevice/libdevice.10.bc").exists():
            return folder
    return None
