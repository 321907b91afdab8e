"""Copies a packed folder from a URL into the cache folder, when it is first used."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from pathlib import Path

from tqdm import tqdm

from seedtf.data.pack.reader import INDEX, LEFT_OUT, META
from seedtf.data.remote import remote_files
from seedtf.errors import UserError
from seedtf.report import format_bytes, is_silent, report

__all__ = ["fetch_pack"]

_MAX_META_BYTES = 64 << 20
_HASH_CHUNK = 1 << 20


def fetch_pack(url: str, flag: str, cache_dir: Path) -> str:
    """The local copy of a packed folder at a URL; any other URL is returned unchanged.

    A packed folder is copied below ``cache_dir`` when it is first used, and again after its pack.json
    at the URL has changed. The SHA-256 of all other files is verified.

    Args:
        url: the URL that the user passed as a folder.
        flag: the flag that the URL was passed with, for error messages.
        cache_dir: the folder of cache files; created if it does not exist.

    Raises:
        UserError: a file of the packed folder is missing or damaged, or the cache cannot be written.
    """
    url = url.rstrip("/")
    try:
        meta_bytes = remote_files(url).read(f"{url}/{META}", _MAX_META_BYTES)
    except OSError:
        return url
    name = url.rpartition("/")[2]
    folder = cache_dir / "packs" / f"{name}-{hashlib.sha256(meta_bytes).hexdigest()[:16]}"
    if folder.is_dir():
        report("pack", f"{url}: using the cached copy in {folder}")
        return str(folder)
    try:
        meta = json.loads(meta_bytes)
        digests = {INDEX: meta["index_sha256"], LEFT_OUT: meta["left_out_sha256"]}
        digests |= {str(shard["file"]): shard["sha256"] for shard in meta["shards"]}
        size = format_bytes(meta["bytes"])
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{flag}={url}: {META} is damaged; upload the pack again") from None
    temporary = folder.parent / f".{folder.name}.{secrets.token_hex(8)}"
    try:
        temporary.mkdir(parents=True)
        _copy_files(url, flag, digests, temporary)
        (temporary / META).write_bytes(meta_bytes)
        _publish(temporary, folder)
    except OSError as error:
        where = error.filename or folder
        raise UserError(f"{flag}={url}: cannot be copied: {error.strerror} ({where})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    report("pack", f"{url}: {size} of images in {len(digests) + 1:,} files copied into {folder}")
    return str(folder)


def _copy_files(url: str, flag: str, digests: dict[str, str], folder: Path) -> None:
    # With disable=None, tqdm prints nothing if stderr is not a terminal.
    disable = True if is_silent() else None
    for file, digest in tqdm(digests.items(), "copying", unit="file", disable=disable, leave=False):
        # A hostile pack.json could name a file outside the folder, which the copy would overwrite.
        if os.path.basename(file) != file:
            raise UserError(f"{flag}={url}: {META} names {file!r}, which lies outside the pack")
        remote_files(url).copy(f"{url}/{file}", str(folder / file))
        found = hashlib.sha256()
        with (folder / file).open("rb") as copied:
            while chunk := copied.read(_HASH_CHUNK):
                found.update(chunk)
        if found.hexdigest() != digest:
            raise UserError(
                f"{flag}={url}: {file} is damaged (its checksum is not the one in {META}); "
                "upload the pack again"
            )


def _publish(temporary: Path, folder: Path) -> None:
    """Renames the complete copy, unless another process has made a copy in the meantime."""
    try:
        os.rename(temporary, folder)
    except OSError:
        if not folder.is_dir():
            raise
