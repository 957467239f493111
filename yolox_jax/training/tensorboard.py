"""Writes the records of metrics.jsonl, and the pictures they name, as an event file for TensorBoard."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary

_NOT_SHOWN = ("step", "time", "event")
_COLOUR_CHANNELS = 3


def numbers_of(record: Mapping[str, Any]) -> dict[str, float]:
    """Returns the numbers of a record, tagged train/NAME or EVENT/NAME."""
    return {
        f"{record.get('event', 'train')}/{name}": value
        for name, value in record.items()
        if name not in _NOT_SHOWN and isinstance(value, int | float)
    }


class EventFile:
    """One event file for the whole run. A resumed run writes it again from the records, so it has each step once.

    tensorboardX's SummaryWriter writes on a thread: a full disk ends that thread, and its queue then blocks the run.
    """

    def __init__(self, folder: Path, records: Iterable[Mapping[str, Any]]):
        """Writes the records to a new file in `folder`, whose parent is the run directory that holds their pictures."""
        self._folder, self._workdir = folder, folder.parent
        for earlier in folder.glob("events.out.tfevents.*"):
            earlier.unlink()
        self._open()
        for record in records:
            self._add(record)
        self._writer.flush()

    def _open(self) -> None:
        self._folder.mkdir(exist_ok=True)
        self._writer = EventsWriter(str(self._folder / "events"))

    def add(self, record: Mapping[str, Any]) -> None:
        """Writes the picture of a record, or its numbers if it has no picture.

        If the file was deleted, begins another one. A run that resumes writes the whole file again.
        """
        if not any(self._folder.glob("events.out.tfevents.*")):
            self._writer.close()
            self._open()
        self._add(record)
        self._writer.flush()

    def _add(self, record: Mapping[str, Any]) -> None:
        if "picture" in record:
            values = self._picture(record)
        else:
            values = [Summary.Value(tag=tag, simple_value=value) for tag, value in numbers_of(record).items()]
        if values:
            summary = Summary(value=values)
            self._writer.write_event(Event(step=record["step"], wall_time=record.get("time"), summary=summary))

    def _picture(self, record: Mapping[str, Any]) -> list[Summary.Value]:
        path = self._workdir / record["picture"]
        if not path.exists():  # the user may have deleted it
            return []
        height, width = record["height_width"]
        image = Summary.Image(
            encoded_image_string=path.read_bytes(), height=height, width=width, colorspace=_COLOUR_CHANNELS
        )
        return [Summary.Value(tag=record["event"], image=image)]

    def close(self) -> None:
        self._writer.close()
