"""train.py on four hosts with addresses of their own, two devices each: a cable is cut, a host joins late."""

import json
import re
import signal
import sys
import time

import pytest

from tests import programs
from tests.namespaces import Network

_NUM_HOSTS = 4
_PORT = 1234
_WORKDIR = "run"  # in a folder that all hosts see
_SECONDS = 180  # from the cut to the end of the last process: the heartbeat's 30, on a machine that may be busy
_CONFIG = [
    f"--config={programs.ROOT / 'tests' / 'small.py'}",
    "--config.input_size=(64, 64)",
    "--config.data.shapes.num_train=64",
    "--config.data.shapes.num_val=8",
    "--config.epochs=100",
    "--config.eval.every_epochs=100",
    "--config.eval.batch_size=8",
    "--config.log_every_steps=1",
    "--config.checkpoint.every_steps=2",
    "--config.freeze=('backbone/',)",  # it is compiled faster
    "--config.parallel.shard_state=true",  # so each host writes its slices
]


@pytest.fixture
def network(tmp_path):
    network = Network(_NUM_HOSTS, tmp_path)
    yield network
    programs.kill_all()
    network.close()


def _start(network: Network, host: int, cwd) -> programs.Program:
    where = [f"--config.parallel.coordinator={network.address(0)}:{_PORT}", f"--config.parallel.process_id={host}"]
    arguments = [*_CONFIG, f"--workdir={_WORKDIR}", f"--config.parallel.num_processes={_NUM_HOSTS}", *where]
    command = [sys.executable, str(programs.ROOT / "train.py"), *arguments]
    return network.start(host, command, cwd, programs.environment(num_devices=2))


def _losses(cwd) -> dict[int, float]:
    records = [json.loads(line) for line in (cwd / _WORKDIR / "metrics.jsonl").read_text().splitlines()]
    return {record["step"]: record["loss"] for record in records if "loss" in record}


@pytest.mark.slow
def test_hosts_survive_a_cut_cable_a_late_start_and_a_sigterm_to_one(network, tmp_path):
    hosts = [_start(network, host, tmp_path) for host in range(_NUM_HOSTS)]
    hosts[0].wait_for_step(5)
    network.set_cable(2, "down")
    cut = time.monotonic()
    for host in hosts:
        assert "error: another process of this run was lost" in host.end(70).stderr
    assert time.monotonic() - cut < _SECONDS
    first = _losses(tmp_path)

    network.set_cable(2, "up")
    hosts = [_start(network, host, tmp_path) for host in range(_NUM_HOSTS - 1)]
    while not network.listens(0, _PORT):
        assert hosts[0].has_open_pipes(), hosts[0].last_lines()
        time.sleep(0.1)
    hosts.append(_start(network, _NUM_HOSTS - 1, tmp_path))
    hosts[0].wait_for_step(max(first) + 3)
    hosts[3].send(signal.SIGTERM)
    output, *_ = [host.end(75).stdout for host in hosts]
    (resumed,) = map(int, re.findall(r"resuming from step (\d+) of run\n", output))
    (saved,) = map(int, re.findall(r"SIGTERM: saved at step (\d+) of run; the same command resumes", output))
    assert resumed >= max(first) - 2  # every second step is saved, and the last save may be cut off
    second = _losses(tmp_path)
    assert list(second) == list(range(saved))
    again = [step for step in first if step >= resumed]  # computed twice
    assert again and [second[step] for step in again] == [first[step] for step in again]
