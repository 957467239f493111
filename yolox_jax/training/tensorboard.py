"""The records of metrics.jsonl, and the pictures that they name, as an event file that TensorBoard opens."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
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
    """One file for the whole run: written anew from the records when a run goes on, so it has each step once.

    tensorboardX's SummaryWriter would write on a thread, which ends where the disk is full, and its queue then blocks.
    """

    def __init__(self, folder: Path, records: Iterable[Mapping[str, Any]]):
        """`folder` is in the run directory, from where the records name pictures."""
        self._workdir = folder.parent
        for former in folder.glob("events.out.tfevents.*"):
            former.unlink()
        folder.mkdir(exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"))
        for record in records:
            self._add(record)
        self._writer.flush()

    def add(self, record: Mapping[str, Any]) -> None:
        """Writes the numbers of a record, under train/ or the name of its event, or its picture."""
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
        if not path.exists():  # somebody may have tidied up
            return []
        height, width = record["height_width"]
        image = Summary.Image(
            encoded_image_string=path.read_bytes(), height=height, width=width, colorspace=_COLOUR_CHANNELS
        )
        return [Summary.Value(tag=record["event"], image=image)]

    def close(self) -> None:
        self._writer.close()
