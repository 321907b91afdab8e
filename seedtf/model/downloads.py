"""Finds the files of a pretrained network in the cache of Hugging Face or Kaggle, or downloads them.

``huggingface_hub`` and ``kagglehub`` each have their own cache, progress bars and settings, such as
``HF_HUB_OFFLINE=1`` and ``KAGGLEHUB_CACHE``. If the files are in a cache, no network access is needed.
The exception is a ``kaggle://`` address without a version, because Kaggle is asked for the newest
version.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from seedtf.compat.keras_hub import builtin_presets, has_keras_hub, import_hugging_face
from seedtf.errors import UserError, first_line, missing_hub
from seedtf.model.backbones import PACKAGES
from seedtf.report import is_silent, report

__all__ = ["cached_folder", "is_url", "locate"]

_HUGGING_FACE, _KAGGLE = "hf://", "kaggle://"
_CONFIG = "config.json"
_DESCRIPTIONS = ("metadata.json", "image_converter.json", "preprocessor_config.json", "README.md")
# Large weights are divided into several files (_SHARDS), whose names are in an index file (_INDEXES).
_WEIGHTS = ("model.weights.h5", "model.safetensors")
_INDEXES = ("model.weights.json", "model.safetensors.index.json")
_SHARDS = ("model_*.weights.h5", "model-*.safetensors")


def is_url(model: str) -> bool:
    """Whether a value of ``--model`` is an address, such as ``hf://timm/resnet18.a1_in1k``."""
    return "://" in model


def locate(model: str, *, with_weights: bool) -> Path:
    """Returns the cache folder of a pretrained network, after downloading the files that are missing.

    Args:
        model: ``hf://owner/name``; ``kaggle://owner/model/framework/variation/version``, or without the
            version for the newest one; or the name of a preset of KerasHub.
        with_weights: whether the weights are needed.

    Raises:
        UserError: the address or name is unknown, a package is missing, or the download fails.
    """
    wanted = f"--model={model}"
    if model.startswith(_HUGGING_FACE):
        return _fetch_from_hugging_face(wanted, model.removeprefix(_HUGGING_FACE), with_weights)
    if model.startswith(_KAGGLE):
        if not has_keras_hub():
            raise missing_hub(wanted)
        return _fetch_from_kaggle(wanted, model.removeprefix(_KAGGLE), with_weights)
    if is_url(model):
        raise UserError(f"{wanted}: pass hf://…, kaggle://…, the name of a preset, or a folder")
    presets = builtin_presets(wanted, PACKAGES)
    if model not in presets:
        close = difflib.get_close_matches(model, presets, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(close)}?" if close else "see: seedtf models"
        raise UserError(f"{wanted} is not a known network; {hint}")
    return _fetch_from_kaggle(wanted, presets[model].handle.removeprefix(_KAGGLE), with_weights)


def cached_folder(handle: str) -> Path | None:
    """The folder of a model in Kaggle's cache; None if it does not exist or lacks files.

    Args:
        handle: ``owner/model/framework/variation/version``, with or without ``kaggle://``. Without a
            version, the result is None.
    """
    cache = os.environ.get("KAGGLEHUB_CACHE") or Path.home() / ".cache" / "kagglehub"
    folder = Path(cache) / "models" / handle.removeprefix(_KAGGLE)
    return folder if _is_complete(folder, with_weights=True) else None


def _fetch_from_hugging_face(wanted: str, repository: str, with_weights: bool) -> Path:
    hub = import_hugging_face(wanted)
    names = [_CONFIG, *_DESCRIPTIONS]
    names += [*_WEIGHTS, *_INDEXES, *_SHARDS] if with_weights else []
    try:
        found = hub.try_to_load_from_cache(repository, _CONFIG)
        if isinstance(found, str) and _is_complete(Path(found).parent, with_weights):
            return Path(found).parent
        report("download", f"{repository} from Hugging Face")
        with _hugging_face_bars(hub):
            return Path(hub.snapshot_download(repository, allow_patterns=names))
    except hub.errors.HFValidationError as error:
        raise UserError(f"{wanted}: write it as hf://owner/name") from error
    except hub.errors.GatedRepoError as error:
        raise UserError(
            f"{wanted}: its owner gives access on request; accept the terms on its page at Hugging "
            "Face and set HF_TOKEN"
        ) from error
    except hub.errors.RepositoryNotFoundError as error:
        raise UserError(
            f"{wanted}: Hugging Face has no such repository, or it is private (set HF_TOKEN)"
        ) from error
    except Exception as error:  # the network or disk failed, or HF_HUB_OFFLINE forbids downloads
        if hub.constants.HF_HUB_OFFLINE:
            raise UserError(
                f"{wanted}: not in the cache of Hugging Face, and HF_HUB_OFFLINE allows no download; "
                "unset it, or pass a folder"
            ) from error
        raise _download_error(wanted, error) from error


def _hides_bars() -> bool:
    return is_silent() or not sys.stderr.isatty()


@contextlib.contextmanager
def _hugging_face_bars(hub: ModuleType) -> Iterator[None]:
    """Hides the progress bars of ``huggingface_hub`` inside the context, where they are not wanted."""
    hides = _hides_bars() and not hub.utils.are_progress_bars_disabled()
    if hides:
        hub.utils.disable_progress_bars()
    try:
        yield
    finally:
        if hides:
            hub.utils.enable_progress_bars()


@contextlib.contextmanager
def _kaggle_bars() -> Iterator[None]:
    """Hides what is written to ``sys.stderr`` inside the context, unless progress bars are wanted.

    ``kagglehub`` writes its bars there, and has no setting for them.
    """
    if not _hides_bars():
        yield
        return
    with open(os.devnull, "w") as nothing, contextlib.redirect_stderr(nothing):
        yield


def _fetch_from_kaggle(wanted: str, handle: str, with_weights: bool) -> Path:
    import kagglehub  # noqa: PLC0415  an optional package

    if (folder := cached_folder(handle)) is not None:
        return folder
    # If `handle` has no version, kagglehub asks Kaggle for the newest one, even if it is in the cache.
    report("download", f"{handle} from Kaggle")

    def fetch(name: str) -> Path | None:
        """Downloads one file; returns None if the model has no such file."""
        try:
            with _kaggle_bars():
                return Path(kagglehub.model_download(handle, name))
        except Exception as error:  # kagglehub raises no specific type for a missing file
            text = str(error)
            if "404 Client Error" in text or "is not present in the model files" in text:
                return None
            raise _download_error(wanted, error) from error

    config = fetch(_CONFIG)
    if config is None:
        raise UserError(f"{wanted}: Kaggle has no such preset (no {_CONFIG}); check the address")
    for name in ("metadata.json", "image_converter.json"):
        fetch(name)
    if with_weights and fetch("model.weights.h5") is None:
        index = fetch("model.weights.json")
        for name in _shards(index) if index else ():
            fetch(name)
    return config.parent


def _is_complete(folder: Path, with_weights: bool) -> bool:
    """Whether ``folder`` has a configuration and, if ``with_weights``, all files of the weights."""
    has_config = (folder / _CONFIG).is_file()
    if not has_config or not with_weights:
        return has_config
    indexes = [folder / name for name in _INDEXES if (folder / name).is_file()]
    return any((folder / name).is_file() for name in _WEIGHTS) or any(
        all((folder / shard).is_file() for shard in _shards(index)) for index in indexes
    )


def _shards(index: Path) -> set[str]:
    """The names of the weights files that an index file lists."""
    files_of_weights = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    return {
        name
        for files in files_of_weights
        for name in ([files] if isinstance(files, str) else files)
    }


def _download_error(wanted: str, error: Exception) -> UserError:
    return UserError(
        f"{wanted} could not be downloaded ({first_line(error)}); check the network, or copy the "
        "files here and pass their folder"
    )
