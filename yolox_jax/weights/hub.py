"""Files of the Hugging Face Hub: hf://owner/name, hf://owner/name/file, and @revision after the name.

huggingface_hub downloads them into its own cache and compares sizes; their SHA-256 is compared here. Its environment
variables hold: HF_HOME, HF_TOKEN, HF_HUB_OFFLINE, and HF_ENDPOINT for a mirror.
"""

import contextlib
import functools
import os
import re
from pathlib import Path
from typing import Any

from yolox_jax import storage
from yolox_jax.errors import UserError

SCHEME = "hf://"
_DEFAULT_FILE = "model.safetensors"  # the Hub's own name for weights
_WEIGHTS = (".safetensors", ".pth")
_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+?)(?:@([\w.-]+))?(?:/([^@]+))?/?")


def fetch(address: str) -> Path:
    """Returns the path of a file of the Hub in the cache. Without a file, the weights of the repository are meant.

    A file that the Hub names by its SHA-256, as it does large ones, must have it.

    Raises:
      UserError: the address is not of that form, there is no such file, it cannot be downloaded, it is damaged and was
        deleted, or the package huggingface_hub is missing.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise UserError(f"{address} is not an address of the Hub", "give hf://owner/name or hf://owner/name/file")
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise UserError(
            f"{address} needs the package huggingface_hub ({error})", "pip install huggingface_hub"
        ) from error
    repository, revision, file = found.groups()
    try:
        path = _fetch(huggingface_hub, errors, repository, revision, file)
    except UserError:
        raise
    except Exception as error:  # huggingface_hub and its HTTP library raise errors of many types
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{address} cannot be downloaded ({reason})", _advice(error, errors)) from error
    try:
        _check(path, address)
    except OSError as error:  # such as another process that has just deleted it
        raise UserError(f"{path}, of {address}, cannot be read ({error})", "try again") from error
    return path


def _fetch(library: Any, errors: Any, repository: str, revision: str | None, file: str | None) -> Path:
    try:
        return Path(library.hf_hub_download(repository, file or _DEFAULT_FILE, revision=revision))
    except errors.EntryNotFoundError as error:
        if file is not None or isinstance(error, errors.LocalEntryNotFoundError):  # offline, and not in the cache
            raise
    there = library.HfApi().list_repo_files(repository, revision=revision)
    weights = [name for name in there if name.endswith(_WEIGHTS)]
    if len(weights) != 1:
        raise UserError(
            f"{repository} has {len(weights) or 'no'} files of weights: {', '.join(weights or there)[:200]}",
            f"name the file: {SCHEME}{repository}/FILE",
        )
    return Path(library.hf_hub_download(repository, weights[0], revision=revision))


def _check(path: Path, address: str) -> None:
    """Deletes a file of the cache and raises UserError if its SHA-256 is not the one that the Hub states.

    The cache links snapshots/COMMIT/FILE to blobs/ETAG. The ETag of a file in LFS is its SHA-256; that of others has 40
    digits. A cache without links (on Windows, or by HF_HUB_DISABLE_SYMLINKS) does not keep the ETag, so nothing is
    checked there.
    """
    if not path.is_symlink():
        return
    # One link only: the blob may itself be a link, to a file that is named by another hash of 64 digits.
    blob = path.parent / os.readlink(path)
    if blob.parent.name != "blobs" or not re.fullmatch("[0-9a-f]{64}", blob.name):
        return
    found = _sha256(blob, blob.stat().st_mtime_ns)
    if found == blob.name:
        return
    content = blob.resolve()
    with contextlib.suppress(OSError):  # of a cache that is read-only
        content.unlink(missing_ok=True)
    if content.exists():
        fate, advice = "cannot be deleted", f"delete {content}"
    else:
        fate, advice = "was deleted", "try again; if it repeats, the server (HF_ENDPOINT) sends another file"
    raise UserError(
        f"{path}, of {address}, is damaged and {fate} (its SHA-256 is {found} instead of {blob.name})", advice
    )


@functools.cache
def _sha256(blob: Path, changed_at_ns: int) -> str:  # a program asks for its weights several times
    return storage.sha256(blob)


def _advice(error: Exception, errors: Any) -> str:
    if isinstance(error, errors.RepositoryNotFoundError | errors.GatedRepoError):
        return "check the name; for a private or gated repository, set HF_TOKEN"
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return (
            "connect to the network, and unset HF_HUB_OFFLINE (HF_ENDPOINT names a mirror), or name the file "
            "(hf://owner/name/FILE) if it is in the cache"
        )
    return "check the address and the network"
