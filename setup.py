"""Installs seedtf. BUILD.md explains why each dependency is needed."""

from __future__ import annotations

import ast
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
# Only 2.15 and 2.21 are tested. pip installs 2.21, and 2.15 with the extra `addons`.
TENSORFLOW_RANGE = ">=2.15,<2.22,!=2.16.*,!=2.17.*,!=2.18.*,!=2.19.*,!=2.20.*"
# TensorFlow Addons 0.23, the last release, works only with TensorFlow 2.15, which excludes NumPy 2.
ADDONS = [
    "tensorflow-addons>=0.23,<0.24",
    "tensorflow>=2.15,<2.16",
    "keras>=2.15,<2.16",
    "numpy>=1.26,<2",
]
# export formats other than SavedModel, and the runtimes that check them
EXPORT = ["ai-edge-litert>=2.1,<3", "tf2onnx>=1.17,<2", "onnx>=1.17,<2", "onnxruntime>=1.20,<2"]
# the map of images in seedtf explore; without this package the map shows principal components
EXPLORE = ["umap-learn>=0.5.7,<0.6"]
# seedtf tune
TUNE = ["optuna>=4.9,<6"]
# trackers of runs; MLflow's SQLite store needs sqlalchemy and alembic beside the small mlflow-skinny
MLFLOW = ["mlflow-skinny>=3.17,<4", "sqlalchemy>=2,<3", "alembic>=1.13,<2"]
WANDB = ["wandb>=0.31,<1"]
TENSORBOARD = ["tensorboard>=2.15,<2.22"]
# networks and weights of KerasHub (needs Python 3.11 and TensorFlow 2.21), and files from Hugging Face
HUB = [
    f"{package}; python_version >= '3.11'"
    for package in ("keras-hub>=0.32,<0.33", "huggingface_hub>=1,<3", "safetensors>=0.5,<1")
]
# predictions as a parquet table
PARQUET = ["pyarrow>=15,<27"]
# seedtf pack, which writes array records and reads images from parquet files
PACK = ["array-record>=0.8,<0.9", *PARQUET]
# seedtf probe and --head=fitted, which fit a classifier on the features of a frozen network
PROBE = ["scikit-learn>=1.4,<2"]
# object stores; for gs:// on Linux, TensorFlow's own file system is used instead
REMOTE = ["fsspec>=2024.2,<2027", "s3fs>=2024.2,<2027", "gcsfs>=2024.2,<2027"]
# photographs of iPhones
HEIC = ["pillow-heif>=1.8,<2"]
# what the tests need with both TensorFlow 2.15 and 2.21
TEST = [
    *TUNE,
    *PROBE,
    "pytest>=8,<10",
    "pytest-xdist>=3.6,<4",
    "packaging>=24,<27",
    "setuptools>=65,<90",
    "hypothesis>=6.100,<7",
    # reference values of metrics and intervals, with scikit-learn
    "scipy>=1.11,<2",
    "statsmodels>=0.14.2,<0.15",
    # to check the Kubernetes manifests
    "kubernetes-validate>=1.31,<2",
    "pyyaml>=6,<7",
]


def _version() -> str:
    """The version number in seedtf/__init__.py, read without importing the package."""
    for node in ast.parse((ROOT / "seedtf/__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            return str(ast.literal_eval(node.value))
    raise ValueError("seedtf/__init__.py states no __version__")


def _readme() -> str:
    path = ROOT / "README.md"
    return path.read_text(encoding="utf-8") if path.exists() else ""


setup(
    name="seedtf",
    version=_version(),
    description="From a folder of labelled images to a served image classifier, in TensorFlow",
    long_description=_readme(),
    long_description_content_type="text/markdown",
    author="The seedtf authors",
    license="Apache-2.0",
    packages=find_packages(include=["seedtf", "seedtf.*"]),
    package_data={
        "seedtf": ["py.typed"],
        "seedtf.evaluation": ["report.html.jinja", "runs.html.jinja"],
        "seedtf.explore": ["explore.css", "explore.html.jinja", "explore.js"],
        "seedtf.plots": ["page.css"],
        "seedtf.training.callbacks": ["live.html.jinja"],
    },
    # TensorFlow sets the upper bound: 2.21 has no wheels for Python 3.14.
    python_requires=">=3.10,<3.14",
    install_requires=[
        f"tensorflow{TENSORFLOW_RANGE}",
        "numpy>=1.26,<3",
        "matplotlib>=3.10,<4",
        "absl-py>=2.1,<3",
        "pillow>=11,<14",
        "psutil>=6,<8",
        "tqdm>=4.66,<5",
        "jinja2>=3.1,<4",
    ],
    extras_require={
        "cuda": [f"tensorflow[and-cuda]{TENSORFLOW_RANGE}"],
        "addons": ADDONS,
        "tensorboard": TENSORBOARD,
        "mlflow": MLFLOW,
        "wandb": WANDB,
        "trackio": ["trackio>=0.43,<1"],
        "export": EXPORT,
        "explore": EXPLORE,
        "tune": TUNE,
        "hub": HUB,
        "probe": PROBE,
        "parquet": PARQUET,
        "pack": PACK,
        "demo": ["gradio>=6.31,<7"],
        "remote": REMOTE,
        "heic": HEIC,
        "docs": ["pdoc>=16,<17"],
        "test": TEST,
        "dev": [
            *EXPORT,
            *HEIC,
            *HUB,
            *PACK,
            *MLFLOW,
            *WANDB,
            *TENSORBOARD,
            "fsspec>=2024.2,<2027",
            "openvino>=2025.0,<2027",
            # reference values of the label quality in seedtf explore
            "cleanlab>=2.7,<3",
            "tensorflow-serving-api>=2.21,<2.22",
            *TEST,
            # the test that trains in a notebook
            "ipykernel>=6.29,<8",
            "nbclient>=0.10,<0.12",
            "ruff>=0.17,<0.18",
            "mypy>=1.19,<3",
            "types-psutil>=6,<8",
            "types-tqdm>=4.66,<5",
        ],
    },
    entry_points={"console_scripts": ["seedtf = seedtf.commands.main:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: Apache Software License",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
)
