"""Everything about a checkpoint that is not an array: its item `meta`, a JSON that is checked whole when it is read."""

import dataclasses
import importlib.metadata
import zlib
from pathlib import Path
from typing import Any

from yolox_jax import storage
from yolox_jax.detection.anchors import check_size
from yolox_jax.errors import UserError
from yolox_jax.weights import strict_json
from yolox_jax.weights.bucket_copy import MOST_STEPS, is_step
from yolox_jax.weights.strict_json import FieldError, check_names, check_whole, shown

FILE = "meta/metadata"  # where orbax's JSON handler writes it, in a checkpoint's folder
_MOST_MB = 16  # the file of 20,000 classes has 1
_FORMAT_VERSION = 3  # since 3: raw weights as a separate item, the data set's fingerprint, the mesh
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "opencv-python-headless")
_DATA_ORDER = ("num_images", "data_set_crc", "global_batch", "seed", "mosaic_window")  # a run that resumes needs all
_MOST_DEVICES = 1 << 20
_OPTIONAL = ("log",)  # older versions did not write it


class CheckpointError(UserError):
    """A checkpoint cannot be written, read or found."""


class OtherFormatError(CheckpointError):
    """A checkpoint is intact, but in the format of another version of this package."""


@dataclasses.dataclass(frozen=True)
class LogMark:
    """What metrics.jsonl was when a checkpoint was saved: a resumed run sees whether it has been changed since."""

    num_bytes: int = 0
    crc32: int = 0

    def after(self, text: bytes) -> "LogMark":
        """Returns the mark of the log with this text at its end."""
        return LogMark(self.num_bytes + len(text), zlib.crc32(text, self.crc32))


@dataclasses.dataclass(frozen=True)
class Meta:
    """Everything about a checkpoint that is not an array."""

    model: str
    class_names: tuple[str, ...]
    step: int  # number of steps done
    config: dict[str, Any]
    data_state: dict[str, int]  # the position in the training data: TrainLoader.get_state
    num_devices: int = 1  # in all processes of the run that wrote it
    num_processes: int = 1
    packages: dict[str, str] = dataclasses.field(default_factory=lambda: _package_versions())
    log: LogMark | None = None

    @property
    def size_hw(self) -> tuple[int, int]:
        """The input size of the run."""
        return check_size(self.config["input_size"])

    @property
    def sixteen_bit(self) -> str:
        """How images of 16 bits were read: a run that is older than the field had the full range."""
        return str(self.config.get("data", {}).get("sixteen_bit", "full"))

    def to_json(self) -> dict[str, Any]:
        fields = {"format_version": _FORMAT_VERSION, **dataclasses.asdict(self)}
        return {name: value for name, value in fields.items() if name not in _OPTIONAL or value is not None}

    @classmethod
    def from_json(cls, content: Any) -> "Meta":
        """Checks every field.

        Raises:
          FieldError: a field is missing, unknown, or of the wrong type or range.
          OtherFormatError: another version of this package wrote it.
        """
        if not isinstance(content, dict):
            raise FieldError(f"is {shown(content)}, not an object")
        fields = dict(content)
        version = fields.pop("format_version", None)
        check_whole("format_version", version, 1, 1 << 20)
        if version != _FORMAT_VERSION:
            raise OtherFormatError(
                f"it has checkpoint format {version}, this version of yolox_jax reads {_FORMAT_VERSION}",
                "open it with the version that wrote it",
            )
        names = [field.name for field in dataclasses.fields(cls)]
        check_names(fields, [name for name in names if name not in _OPTIONAL], _OPTIONAL)
        if not isinstance(fields["model"], str) or not fields["model"]:
            raise FieldError(f"model is {shown(fields['model'])}, not a name")
        class_names = fields["class_names"]
        if not isinstance(class_names, list) or not class_names:
            raise FieldError(f"class_names is {shown(class_names)}, not a list of names")
        for label, name in enumerate(class_names):
            if not isinstance(name, str):
                raise FieldError(f"class_names[{label}] is {shown(name)}, not a name")
        check_whole("step", fields["step"], 0, MOST_STEPS)
        _check_config(fields["config"])
        _check_data_state(fields["data_state"], fields["step"])
        check_whole("num_devices", fields["num_devices"], 1, _MOST_DEVICES)
        check_whole("num_processes", fields["num_processes"], 1, fields["num_devices"])
        packages = fields["packages"]
        if not isinstance(packages, dict) or not all(isinstance(each, str) for each in packages.values()):
            raise FieldError(f"packages is {shown(packages)}, not an object of versions")
        return cls(**{**fields, "class_names": tuple(class_names), "log": _log_mark(fields.get("log"))})


def read(checkpoint: Path) -> Meta:
    """Reads and checks the meta of a checkpoint's folder.

    Raises:
      FieldError: as `Meta.from_json`, or the file is missing or not a regular one; the message names it.
      OtherFormatError: as `Meta.from_json`.
    """
    try:
        meta = Meta.from_json(strict_json.parse(storage.read_regular(checkpoint / FILE, _MOST_MB)))
        if is_step(checkpoint.name) and int(checkpoint.name) != meta.step:
            raise FieldError(f"step is {meta.step}, not that of the folder")
    except (FieldError, OSError) as error:
        what = (isinstance(error, OSError) and error.strerror) or error
        raise FieldError(f"{FILE}: {what}") from error
    return meta


def _check_config(config: Any) -> None:
    """Checks the fields that are used. All others may be those of another version."""
    if not isinstance(config, dict):
        raise FieldError(f"config is {shown(config)}, not an object")
    for name in ("input_size", "optimizer"):
        if name not in config:
            raise FieldError(f"the field 'config.{name}' is missing")
    size_hw, data = config["input_size"], config.get("data", {})
    if not all(type(side) is int for side in (size_hw if isinstance(size_hw, list) else [size_hw])):
        raise FieldError(f"config.input_size is {shown(size_hw)}, not one or two whole numbers")
    try:
        check_size(size_hw)
    except UserError as error:
        raise FieldError(f"config.input_size is {shown(size_hw)}: {error.advice}") from error
    if not isinstance(config["optimizer"], str):
        raise FieldError(f"config.optimizer is {shown(config['optimizer'])}, not a name")
    if not isinstance(data, dict):
        raise FieldError(f"config.data is {shown(data)}, not an object")
    if data.get("sixteen_bit", "full") not in ("full", "range"):
        raise FieldError(f"config.data.sixteen_bit is {shown(data['sixteen_bit'])}, not full or range")


def _check_data_state(state: Any, step: int) -> None:
    try:
        check_names(state, ["next_step"], _DATA_ORDER)
    except FieldError as error:
        raise FieldError(f"data_state: {error}") from error
    for name, value in state.items():
        check_whole(f"data_state.{name}", value, 0, 10**18)
    if state["next_step"] != step:
        raise FieldError(f"data_state.next_step is {state['next_step']}, but step is {step}")


def _log_mark(fields: Any) -> LogMark | None:
    if fields is None:
        return None
    try:
        check_names(fields, [field.name for field in dataclasses.fields(LogMark)])
    except FieldError as error:
        raise FieldError(f"log: {error}") from error
    check_whole("log.num_bytes", fields["num_bytes"], 0, 1 << 50)
    check_whole("log.crc32", fields["crc32"], 0, (1 << 32) - 1)
    return LogMark(**fields)


def _package_versions() -> dict[str, str]:
    return {name: _version(name) for name in _PACKAGES}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # cv2 may be installed from another wheel
        return "unknown"
