"""The records of metrics.jsonl as an event file that TensorBoard opens."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

_NOT_SHOWN = ("step", "time", "event")


class EventFile:
    """One file for the whole run: written anew from the records when a run goes on, so it has each step once."""

    def __init__(self, folder: Path, records: Iterable[Mapping[str, Any]]):
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
        for name, value in record.items():
            if name not in _NOT_SHOWN and isinstance(value, int | float):
                tag = f"{record.get('event', 'train')}/{name}"
                self._writer.add_scalar(tag, value, record["step"], walltime=record.get("time"))

    def close(self) -> None:
        self._writer.close()
