"""What a path names that a user gives: a local file or folder, or an address in a bucket such as gs://bucket/x."""

import dataclasses
import os
import re
from pathlib import Path, PurePath

from yolox_jax.errors import UserError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)  # two letters at least: C:/ is a drive
_NOT_BUCKETS = ("http", "https", "file")


@dataclasses.dataclass(frozen=True, order=True)
class BucketPath:
    """An address in a bucket, such as gs://bucket/runs/1. It joins like a pathlib.Path, but is not os.PathLike.

    So `open` and `Path` refuse it: they would make a local folder called "gs:".
    """

    scheme: str
    parts: tuple[str, ...]  # the bucket first

    def __str__(self) -> str:
        return f"{self.scheme}://{'/'.join(self.parts)}"

    def __truediv__(self, below: "str | PurePath") -> "BucketPath":
        parts = below.split("/") if isinstance(below, str) else below.parts
        return BucketPath(self.scheme, self.parts + tuple(part for part in parts if part not in ("", ".")))

    @property
    def key(self) -> str:
        """The name that fsspec's filesystems have for it."""
        return "/".join(self.parts) if self.scheme in ("gs", "s3") else str(self)

    @property
    def name(self) -> str:
        return self.parts[-1]

    @property
    def stem(self) -> str:
        return PurePath(self.name).stem

    @property
    def suffix(self) -> str:
        return PurePath(self.name).suffix

    @property
    def parent(self) -> "BucketPath":
        """The folder above; a bucket is its own."""
        return BucketPath(self.scheme, self.parts[:-1] or self.parts)

    def with_name(self, name: str) -> "BucketPath":
        return BucketPath(self.scheme, (*self.parts[:-1], name))

    def with_suffix(self, suffix: str) -> "BucketPath":
        return self.with_name(self.stem + suffix)


Location = Path | BucketPath


def is_remote(path: "str | os.PathLike[str] | BucketPath") -> bool:
    """True for a BucketPath and for a text such as gs://bucket/x; False for a local path, http:// and C:/."""
    if isinstance(path, BucketPath):
        return True
    found = _SCHEME.fullmatch(path) if isinstance(path, str) else None
    return bool(found) and found[1].lower() not in _NOT_BUCKETS  # type: ignore[index]  # found is not None here


def resolve(path: "str | os.PathLike[str] | BucketPath") -> Location:
    """Returns what a user's text names: a BucketPath for an address such as gs://bucket/x, else a pathlib.Path.

    Raises:
      UserError: an address without a bucket, with credentials in it, or with one slash (gs:/bucket).
    """
    if isinstance(path, BucketPath):
        return path
    text = os.fspath(path)
    if re.match(r"(gs|gcs|s3):/(?!/)", text):
        raise UserError(f"{text} has one slash after the colon", "write two, such as gs://bucket/folder")
    if not is_remote(text):
        return Path(text.removeprefix("file://"))
    scheme, rest = _SCHEME.fullmatch(text).groups()  # type: ignore[union-attr]  # is_remote matched it
    scheme = {"gcs": "gs", "s3a": "s3"}.get(scheme.lower(), scheme.lower())
    parts = tuple(part for part in rest.split("/") if part not in ("", "."))
    if not parts:
        raise UserError(f"{scheme}:// names no bucket", f"write {scheme}://bucket/folder")
    account, at, _ = parts[0].rpartition("@")
    if at and (scheme in ("gs", "s3") or ":" in account):  # Azure has abfs://container@account.host
        raise UserError(
            f"an address {scheme}:// has a user or key in it", "leave it out; credentials come from the environment"
        )
    return BucketPath(scheme, parts)


def local_path(path: "str | os.PathLike[str]") -> Path:
    """Returns the local path that a user's text names, for an input that is only read from this machine.

    Raises:
      UserError: it is an address in a bucket, or `resolve` refuses it.
    """
    location = resolve(path)
    if isinstance(location, BucketPath):
        raise UserError(f"{location} is an address, and this takes files of this machine", "copy it here first")
    return location
