"""Files that are local or in a bucket: reads, writes, lists and moves them by a path of either kind.

What holds for each kind of store:

| | gs:// | s3:// | other addresses | local |
|---|---|---|---|---|
| a write is seen whole or not at all | yes | yes | as the store does | yes |
| `create`, only if absent | one request | one request | if fsspec's `mode="create"` is | yes |
| `replace`, only if unchanged | one request | one request | compared first | compared first |
| `Entry.version` | generation | ETag | ETag or time, if there is one | time, size and inode |

A function that gets a local path imports no library and needs none. One that gets a BucketPath repeats a request that
fails for a reason that may pass, as long as its `patience` says, and then raises UnreachableError; a bucket that
refuses is a StorageError at once.
"""

from yolox_jax.storage.client import Patience, StorageError, UnreachableError
from yolox_jax.storage.files import (
    Entry,
    check_writable,
    create,
    entry,
    exists,
    in_parallel,
    is_folder,
    list_files,
    list_names,
    move,
    read_bytes,
    read_versioned,
    remove,
    remove_tree,
    replace,
    replace_local,
    write_bytes,
)
from yolox_jax.storage.local_copy import copy_file, copy_folder
from yolox_jax.storage.locations import BucketPath, Location, is_remote, local_path, resolve
from yolox_jax.storage.regular import RefusedFileError, check_no_pointer, read_regular, sha256
from yolox_jax.storage.transfers import download, upload

__all__ = [
    "BucketPath",
    "Entry",
    "Location",
    "Patience",
    "RefusedFileError",
    "StorageError",
    "UnreachableError",
    "check_no_pointer",
    "check_writable",
    "copy_file",
    "copy_folder",
    "create",
    "download",
    "entry",
    "exists",
    "in_parallel",
    "is_folder",
    "is_remote",
    "list_files",
    "list_names",
    "local_path",
    "move",
    "read_bytes",
    "read_regular",
    "read_versioned",
    "remove",
    "remove_tree",
    "replace",
    "replace_local",
    "resolve",
    "sha256",
    "upload",
    "write_bytes",
]
