"""``seedtf publish``: hands on the newest export of a run with its flags and a model card."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from seedtf.errors import UserError, first_line
from seedtf.export.local_paths import remove_local_paths
from seedtf.export.model_card import render_model_card
from seedtf.files import write_text
from seedtf.runs.folder import read_settings
from seedtf.runs.paths import PARITY, RunPaths
from seedtf.runs.saved_model import newest_saved_model

__all__ = ["HUB", "publish_run"]

HUB = "hf://"
"""The beginning of a destination on Hugging Face: ``hf://user/name``."""

_CARD, _MODEL = "README.md", "saved_model"


def publish_run(run_dir: str | os.PathLike[str], out: str) -> str:
    """Writes a folder, or uploads it to Hugging Face; returns the path or address of the folder.

    The folder contains the newest export of the run in all its formats, ``config.json``, the class
    names, and a model card as ``README.md``. Local paths are removed from the copies of ``config.json``
    and ``parity.json`` (see ``remove_local_paths``).

    Args:
        run_dir: a run that was evaluated and exported.
        out: a folder that does not exist yet, or ``hf://user/name``.

    Raises:
        UserError: the run has no report or no export, or one of its files is damaged; ``out`` is a
            folder that exists or cannot be written, or an address of another form than
            ``hf://user/name``; huggingface_hub is needed and not installed; or the upload failed.
    """
    paths = RunPaths.of(run_dir)
    settings = read_settings(run_dir)
    saved_model = newest_saved_model(paths.export)
    if saved_model is None:
        raise UserError(f"{paths.root}: has no export; run: seedtf export {paths.root}")
    if out.startswith(HUB):
        repository = out.removeprefix(HUB)
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
            raise UserError(f"--out={out}: is not of the form {HUB}user/name; correct it")
        card = render_model_card(run_dir, repository.partition("/")[2])
        with tempfile.TemporaryDirectory() as folder:
            _write_folder(Path(folder), paths, settings, saved_model, card)
            return _upload(Path(folder), repository)
    target = Path(out)
    if target.exists():
        raise UserError(f"--out={target}: already exists; pass a new folder")
    card = render_model_card(run_dir, target.name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # The folder appears under its name only when it is complete.
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".publishing.") as folder:
            content = Path(folder) / target.name
            content.mkdir()
            _write_folder(content, paths, settings, saved_model, card)
            content.rename(target)
    except OSError as error:
        raise UserError(f"--out={target}: {error.strerror or error}; pass another folder") from None
    return str(target)


def _write_folder(
    folder: Path, paths: RunPaths, settings: dict[str, Any], saved_model: Path, card: str
) -> None:
    shutil.copytree(saved_model, folder / _MODEL)
    # Local paths are removed from the copies only; the export of the run does not change.
    for parity_file in (folder / _MODEL).rglob(PARITY):
        _write_json(parity_file, _read_parity(parity_file, saved_model))
    _write_json(folder / paths.config.name, settings)
    shutil.copyfile(paths.classes, folder / paths.classes.name)
    write_text(folder / _CARD, card)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    text = json.dumps(remove_local_paths(values), indent=2, ensure_ascii=False)
    write_text(path, text + "\n")


def _read_parity(copy: Path, saved_model: Path) -> dict[str, Any]:
    """The content of a copied parity.json.

    Raises:
        UserError: the file cannot be parsed, so local paths cannot be removed from it.
    """
    try:
        return dict(json.loads(copy.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{saved_model}: its {copy.name} is damaged ({error}); export the run again"
        ) from None


def _upload(folder: Path, repository: str) -> str:
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError:
        raise UserError(
            f"--out={HUB}{repository}: needs huggingface_hub; run: pip install 'seedtf[hub]'"
        ) from None
    try:
        api = hub.HfApi()
        api.create_repo(repository, exist_ok=True, private=True)
        api.upload_folder(repo_id=repository, folder_path=str(folder))
    except Exception as error:  # requests, the hub and the local login raise errors of many types
        raise UserError(
            f"--out={HUB}{repository}: upload failed ({first_line(error)}); log in with "
            "hf auth login, or pass a folder"
        ) from error
    return f"https://huggingface.co/{repository}"
