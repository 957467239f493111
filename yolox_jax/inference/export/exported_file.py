"""The file of an exported detector: a zip of the serialized program, a JSON that describes it, and a certificate.

A hash over the first two ties them together, and is checked before anything in the program is looked at. The
certificate (certificate.py) may be missing.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from yolox_jax import storage
from yolox_jax.data.images import ImageConfig
from yolox_jax.data.tiling import tiling_of
from yolox_jax.detection.anchors import check_size
from yolox_jax.errors import UserError
from yolox_jax.weights import strict_json

ENDING = ".stablehlo.zip"
_PROGRAM, _META, _CERTIFICATE = "program.stablehlo", "yolox_jax.json", "certificate.json"
_FORMAT_VERSION = 2  # since 2: the hash, sixteen_bit
# flatbuffers, in which jax serializes, end at 2 GiB.
_MOST_BYTES = {_META: 1 << 24, _CERTIFICATE: 1 << 26, _PROGRAM: 1 << 31}


@dataclasses.dataclass(frozen=True)
class Description:
    """Everything about an exported detector besides its program."""

    class_names: tuple[str, ...]
    size_hw: tuple[int, int]
    batch: int | None  # images per call, or None if any number will do
    platforms: tuple[str, ...]
    sixteen_bit: str  # how images of 16 bits became those of training: config.data.sixteen_bit
    slices: str = ""  # if not empty, the program takes one image in any number of tiles: DetectConfig.slices
    overlap: float = 0.2  # of the tiles

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Description":
        """Raises a ValueError that names a field which is missing, unknown, or of the wrong type or range."""
        known = [field.name for field in dataclasses.fields(cls)]
        fields = {"slices": "", "overlap": 0.2, **fields}  # a file written before there were tiles lacks them
        if wrong := sorted(fields.keys() ^ set(known)):
            raise ValueError(f"the field {wrong[0]!r} is {'unknown' if wrong[0] in fields else 'missing'}")
        class_names, size_hw, batch, platforms, sixteen_bit, slices, overlap = (fields[name] for name in known)
        for name, texts in (("class_names", class_names), ("platforms", platforms)):
            if not (isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts)):
                raise ValueError(f"{name} is not a list of names")
        if not (isinstance(size_hw, list) and len(size_hw) == 2 and all(type(side) is int for side in size_hw)):
            raise ValueError("size_hw is not a list of two whole numbers")
        if not (batch is None or (type(batch) is int and batch >= 1)):
            raise ValueError("batch is neither null nor a whole number of 1 or more")
        for name, value, kind in (("slices", slices, str), ("overlap", overlap, int | float)):
            if not isinstance(value, kind):
                raise ValueError(f"{name} is {value!r}")  # noqa: TRY004  (one kind of error for all fields)
        tiling_of(slices, overlap)
        ImageConfig(sixteen_bit=sixteen_bit)
        return cls(tuple(class_names), check_size(size_hw), batch, tuple(platforms), sixteen_bit, slices, overlap)


def is_exported(path: str | Path) -> bool:
    """Checks whether `path` is an exported file, by its name if it is damaged."""
    if not Path(path).is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return _META in archive.namelist()
    except Exception:  # noqa: BLE001  (zipfile raises errors of many types at damaged files)
        return str(path).endswith(ENDING)


def write(path: str | Path, description: Description, program: bytes, certificate: str | None = None) -> None:
    """Writes the file.

    Raises:
      UserError: the file cannot be written.
    """
    fields = dataclasses.asdict(description)
    content = {"format_version": _FORMAT_VERSION, **fields, "sha256": _hash(fields, program)}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_META, json.dumps(content))
        archive.writestr(_PROGRAM, program)
        if certificate is not None:
            archive.writestr(_CERTIFICATE, certificate)
    storage.write_bytes(Path(path), file.getvalue())


def read(path: str | Path) -> tuple[Description, bytes]:
    """Reads a file that `write` wrote. Returns its description and the serialized program.

    Raises:
      UserError: the file cannot be read, is damaged or changed, or is in the format of another version.
    """
    with _open(path) as archive:
        fields = dict(strict_json.parse(_member(archive, _META)))
        version = fields.pop("format_version", None)
        if type(version) is not int:
            raise ValueError("the field 'format_version' is missing or not a number")
        if version == _FORMAT_VERSION:  # other versions may have other fields
            stated, program = fields.pop("sha256", None), _member(archive, _PROGRAM)
            if stated != _hash(fields, program):
                raise ValueError("program and description are not those that were written together")
            return Description.from_json(fields), program
    raise UserError(
        f"{path} has file format {version}, but this version of yolox_jax reads format {_FORMAT_VERSION}",
        "export it again, or read it with the version of yolox_jax that wrote it",
    )


def read_certificate(path: str | Path) -> bytes | None:
    """Returns the certificate of a file, or None if it has none.

    Raises:
      UserError: the file cannot be read or is damaged.
    """
    with _open(path) as archive:
        return _member(archive, _CERTIFICATE) if _CERTIFICATE in archive.namelist() else None


@contextlib.contextmanager
def _open(path: str | Path) -> Iterator[zipfile.ZipFile]:
    """Opens the zip for a block that only reads it; its errors become UserErrors that name `path`."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})", "check the path") from error
    except Exception as error:  # zipfile, its codecs and json raise errors of many types at damaged files
        raise UserError(f"{path} is damaged ({_one_line(error)})", "copy or export it again") from error


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > _MOST_BYTES[name]:
        raise ValueError(f"{name} has more than {_MOST_BYTES[name]} bytes")
    return archive.read(name)  # not more than file_size, even if there is more


def _hash(fields: Mapping[str, Any], program: bytes) -> str:
    """SHA-256 of the description, in a form that does not depend on the order of fields, and of the program."""
    of_both = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    of_both.update(b"\0" + hashlib.sha256(program).digest())
    return of_both.hexdigest()


def _one_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
