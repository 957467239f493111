"""Progress of a transfer: how much, how fast and how long it still takes, by a clock that the test sets."""

import sys

import pytest

from yolox_jax.storage import progress
from yolox_jax.storage.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_further_tenth_is_a_line_with_bytes_speed_and_the_time_left(clock):
    lines = []
    with Progress("a.pth", lines.append, total=400_000_000) as shown:
        for seconds, num_bytes in ((1, 0), (9, 30_000_000), (10, 70_000_000), (10, 10_000_000), (50, 290_000_000)):
            clock[0] += seconds
            shown.add(num_bytes)
    assert lines == [
        "a.pth:  25 % of 400.0 MB, 5.0 MB/s, ETA 0:01:00",
        "a.pth: 100 % of 400.0 MB, 5.0 MB/s",
    ]


def test_what_an_earlier_transfer_received_counts_as_bytes_but_not_as_speed(clock):
    lines = []
    with Progress("a.pth", lines.append) as shown:
        shown.show(100_000_000, 300_000_000)
        clock[0] += 20
        shown.show(140_000_000, 300_000_000)
    assert lines == ["a.pth:  33 % of 300.0 MB, 0.0 MB/s", "a.pth:  46 % of 300.0 MB, 2.0 MB/s, ETA 0:01:20"]


def test_on_a_terminal_one_line_changes_at_most_ten_times_a_second(clock, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    with Progress("a.pth", print) as shown:
        for seconds in (1.0, 0.06, 0.06):
            clock[0] += seconds
            shown.show(int((clock[0] - 100) * 2_000_000), None)
    assert capsys.readouterr().out == "\ra.pth: 2.0 MB, 0.0 MB/s  \ra.pth: 2.2 MB, 0.2 MB/s  \n"
