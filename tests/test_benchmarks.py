"""Benchmarks name their machine, and compare no times beside other programs."""

import argparse
import os
import sys

import pytest

from benchmarks import machine
from tests.material import ROOT

_PROGRAMS = [path for path in sorted(ROOT.glob("benchmarks/**/*.py")) if "def main()" in path.read_text()]


@pytest.mark.parametrize("program", _PROGRAMS, ids=lambda path: path.relative_to(ROOT / "benchmarks").as_posix())
def test_every_benchmark_names_its_machine(program):
    text = program.read_text()
    assert "machine.parse_quiet(parser)" in text or "machine.describe()" in text


def test_processor_time_leaves_out_idling_and_counts_guests_once():
    ticks = os.sysconf("SC_CLK_TCK")
    user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice = range(ticks, 11 * ticks, ticks)
    columns = user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice
    stat = f"cpu  {' '.join(map(str, columns))}\ncpu0 1 1 1 1 1 1 1 1 1 1\n"
    assert machine.busy_seconds(stat) == 1 + 2 + 3 + 6 + 7 + 8


@pytest.mark.skipif(not machine._STAT.exists(), reason="needs Linux")
def test_the_load_of_others_is_what_this_process_did_not_use(monkeypatch):
    clock, busy, own = iter((10.0, 12.0)), iter((100.0, 103.0)), iter((5.0, 6.0))
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(machine.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(machine, "busy_seconds", lambda text: next(busy))
    monkeypatch.setattr(machine, "_own_seconds", lambda: next(own))
    assert machine.load_of_others() == (3 - 1) / 2


@pytest.mark.parametrize(("load", "arguments", "refused"), [(0.6, [], True), (0.6, ["--despite-load"], False)])
def test_beside_other_programs_times_are_compared_only_if_asked_for(monkeypatch, capsys, load, arguments, refused):
    monkeypatch.setattr(machine, "load_of_others", lambda: load)
    monkeypatch.setattr(sys, "argv", ["benchmark", *arguments])
    parser = argparse.ArgumentParser()
    if refused:
        with pytest.raises(SystemExit, match=r"other programs use 0\.6 cores"):
            machine.parse_quiet(parser)
    else:
        machine.parse_quiet(parser)
    assert "load of other programs: 0.6" in capsys.readouterr().out


@pytest.mark.parametrize("load", [0.5, None])
def test_on_a_quiet_machine_a_benchmark_begins(monkeypatch, load):
    monkeypatch.setattr(machine, "load_of_others", lambda: load)
    monkeypatch.setattr(sys, "argv", ["benchmark"])
    assert machine.parse_quiet(argparse.ArgumentParser()).despite_load is False
