"""What metrics.jsonl and ap.json say of the steps that are done, when a run starts. What is damaged is set aside.

Each checkpoint says what metrics.jsonl was when it was saved (`LogMark`), so that any change of it since is seen. What
came after that is at most the evaluation of this checkpoint, whose AP is in ap.json too; both must agree. All later
records are those of steps that run again.
"""

import dataclasses
import logging
import os
import re
from pathlib import Path
from typing import Any

from yolox_jax import storage
from yolox_jax.errors import NotFoundError
from yolox_jax.storage import Location
from yolox_jax.training import hosts
from yolox_jax.training.checkpoints import Checkpoints
from yolox_jax.training.run_directory import DAMAGED, keep_damaged
from yolox_jax.weights import strict_json
from yolox_jax.weights.bucket_copy import MOST_STEPS
from yolox_jax.weights.meta import LogMark, Meta
from yolox_jax.weights.strict_json import FieldError, check_whole, shown

logger = logging.getLogger("yolox_jax.training")

LOG = "metrics.jsonl"
MOST_MB = 2048  # a record has half a kilobyte: those of 300 epochs of COCO have 30 MB
_EVALUATION_EVENTS = ("predictions", "evaluation")  # what is logged after the save of the step that is evaluated
_PICTURE = re.compile(r"pictures/[\w.-]+")  # in the run directory, since TensorBoard's file gets its content


@dataclasses.dataclass(frozen=True)
class _Line:
    """One line of the log; `end` is the number of bytes up to its end."""

    text: bytes
    end: int
    record: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class History:
    """The log of the steps before `num_steps`, which a run that starts there continues."""

    num_steps: int = 0
    lines: tuple[_Line, ...] = ()

    @property
    def text(self) -> bytes:
        return b"".join(line.text for line in self.lines)

    @property
    def records(self) -> list[dict[str, Any]]:
        return [line.record for line in self.lines]


NEW = History()  # of a run that begins


def resumed(workdir: Path, shown_as: Location, meta: Meta | None, checkpoints: Checkpoints) -> History:
    """Returns the history of a run that starts from the checkpoint with this meta, or anew, and corrects the APs.

    Process 0 decides for all, and gets the lines. All processes must call this.
    """
    history, aps, damage = History(0 if meta is None else meta.step), checkpoints.aps(), ""
    if hosts.is_primary():
        history, aps, damage = _of_primary(workdir, shown_as, meta, aps, checkpoints.aps_damage)
    checkpoints.replace_aps(aps, damage)
    return history


def read_lines(data: bytes) -> tuple[list[_Line], list[str]]:
    """Returns the valid lines of a log, and what is wrong with the others; a last one without an end is left out.

    The steps of the records of one kind increase.
    """
    lines, faults, end = [], [], 0
    last_steps: dict[str, int] = {}
    for number, text in enumerate(re.split(rb"(?<=\n)", data), 1):
        end += len(text)
        if not text.endswith(b"\n"):  # a run was killed while it wrote
            break
        try:
            record = _record(text)
            kind, step = record.get("event", ""), record["step"]
            if step <= last_steps.get(kind, -1):
                raise FieldError(f"has step {step} after step {last_steps[kind]}")
            last_steps[kind] = step
            lines.append(_Line(text, end, record))
        except FieldError as error:
            faults.append(f"line {number} {error}")
    return lines, faults


def _of_primary(
    workdir: Path, shown_as: Location, meta: Meta | None, aps: dict[int, float], aps_damage: str
) -> tuple[History, dict[int, float], str]:
    """As `resumed`, with the APs and what is wrong with ap.json, in process 0."""
    num_steps, mark = (0, None) if meta is None else (meta.step, meta.log)
    data, fault = _read(workdir / LOG)
    lines, faults = read_lines(data or b"")
    is_verified = mark is not None and mark == LogMark().after((data or b"")[: mark.num_bytes])
    if fault and (data is None or num_steps):
        faults = [fault]
    elif mark is not None and not is_verified:
        faults.insert(0, f"is not what it was when step {num_steps} was saved")

    kept = [line for line in lines if line.record["step"] < num_steps]
    logged = {line.record["step"] + 1: line.record.get("AP") for line in kept if _is(line, "evaluation")}
    before = {step: ap for step, ap in aps.items() if step < num_steps}
    if is_verified or aps_damage:
        evaluated = {step: float(ap) for step, ap in logged.items() if step < num_steps and ap is not None}
        if evaluated != before and not aps_damage:
            aps_damage = f"has other APs than {LOG}"
        before = evaluated
    elif any(step in logged and logged[step] != ap for step, ap in before.items()):
        faults.append("has other APs than ap.json: it is that of another run")
        kept = []
    after = dict(aps.items() & {(num_steps, logged.get(num_steps))})  # else it is evaluated again
    if num_steps not in after:
        kept = [line for line in kept if line.record["step"] + 1 < num_steps or not _is(line, *_EVALUATION_EVENTS)]
    if faults:
        _report(workdir, shown_as, data, faults, len(kept), num_steps)
    return History(num_steps, tuple(kept)), before | after, aps_damage


def _read(path: Path) -> tuple[bytes | None, str]:
    """Returns the content, and why there is none: None if something else than a file is there."""
    try:
        return storage.read_bytes(path, most_mb=MOST_MB), ""
    except NotFoundError:
        return (None, "is a link to what does not exist") if os.path.lexists(path) else (b"", "is missing")
    except OSError as error:
        return None, f"cannot be read ({error.strerror or error})"


def _report(
    workdir: Path, shown_as: Location, data: bytes | None, faults: list[str], num_kept: int, num_steps: int
) -> None:
    """Sets the log aside, if there is one, and warns."""
    text = f"{shown_as / LOG} {faults[0]}" + (f" ({len(faults)} faults in all)" if len(faults) > 1 else "")
    if data != b"":
        text += f"; it is set aside as {shown_as / DAMAGED / keep_damaged(workdir, LOG, data)}"
    logger.warning("%s; %d records of the steps before %d are kept", text, num_kept, num_steps)


def _is(line: _Line, *events: str) -> bool:
    return line.record.get("event") in events


def _record(text: bytes) -> dict[str, Any]:
    """Parses and checks one line. Raises a FieldError."""
    record = strict_json.parse(text, any_text=True)  # an image id may be any file name
    if not isinstance(record, dict):
        raise FieldError(f"is {shown(record)}, not an object")
    check_whole("step", record.get("step"), 0, MOST_STEPS)
    for name, value in record.items():
        if isinstance(value, bool) or not isinstance(value, int | float | str | list):
            raise FieldError(f"has the {name} {shown(value)}")
        if name in ("event", "picture") and not (isinstance(value, str) and value):
            raise FieldError(f"has the {name} {shown(value)}")
    check_whole("num_dropped_boxes", record.get("num_dropped_boxes", 0), 0, 10**18)
    if not isinstance(record.get("time", 0), int | float):
        raise FieldError(f"has the time {shown(record['time'])}")
    if record.get("event") == "evaluation" and not isinstance(record.get("AP"), int | float):
        raise FieldError("has no AP")
    if "picture" in record:
        sides = record.get("height_width")
        if "event" not in record or not (isinstance(sides, list) and len(sides) == 2):
            raise FieldError(f"has the height_width {shown(sides)}")
        for side in sides:
            check_whole("height_width", side, 1, 1 << 20)
        if not _PICTURE.fullmatch(record["picture"]):
            raise FieldError(f"has the picture {shown(record['picture'])}, which is none of the run")
    return record
