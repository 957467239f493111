"""The records of metrics.jsonl, and the pictures that they name, as an event file that TensorBoard opens."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter
from tensorboardX.proto.summary_pb2 import Summary

_NOT_SHOWN = ("step", "time", "event")
_COLOUR_CHANNELS = 3


def numbers_of(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record, under train/ or the name of its event."""
    return {
        f"{record.get('event', 'train')}/{name}": value
        for name, value in record.items()
        if name not in _NOT_SHOWN and isinstance(value, int | float)
    }


class EventFile:
    """One file for the whole run: written anew from the records when a run goes on, so it has each step once."""

    def __init__(self, folder: Path, records: Iterable[Mapping[str, Any]]):
        """`folder` is in the run directory, from where the records name pictures."""
        self._workdir = folder.parent
        for former in folder.glob("events.out.tfevents.*"):
            former.unlink()
        self._writer = SummaryWriter(str(folder))
        for record in records:
            self._add(record)
        self._writer.flush()

    def add(self, record: Mapping[str, Any]) -> None:
        """The numbers of a record, under train/ or the name of its event."""
        self._add(record)
        self._writer.flush()

    def _add(self, record: Mapping[str, Any]) -> None:
        if "picture" in record:
            self._add_picture(record)
            return
        for tag, value in numbers_of(record).items():
            self._writer.add_scalar(tag, value, record["step"], walltime=record.get("time"))

    def _add_picture(self, record: Mapping[str, Any]) -> None:
        path = self._workdir / record["picture"]
        if path.exists():  # somebody may have tidied up
            height, width = record["height_width"]
            image = Summary.Image(
                encoded_image_string=path.read_bytes(), height=height, width=width, colorspace=_COLOUR_CHANNELS
            )
            summary = Summary(value=[Summary.Value(tag=record["event"], image=image)])
            self._writer.file_writer.add_summary(summary, record["step"], record.get("time"))

    def close(self) -> None:
        self._writer.close()
