"""train.py on four hosts with addresses of their own, two devices each, which share nothing but a bucket."""

import contextlib
import json
import re
import signal
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests import programs
from tests.namespaces import Network
from tests.storage_servers import Bucket, google_bucket, google_server
from yolox_jax.weights import manifest

_NUM_HOSTS = 4
_LATE_S = 10.0  # after the others wait: longer than its own start takes
_PORT = 1234
_SECONDS = 60  # from the cut to the end of the last process: the heartbeat's 30, on a machine that may be busy
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
    f"--config.parallel.num_processes={_NUM_HOSTS}",
]


class _Hosts:
    """The hosts, each with a cache folder of its own, and the address of the run: a bucket on the switch.

    Only the tests' compiled programs are on a disk that all hosts see.
    """

    def __init__(self, network: Network, bucket: Bucket, folder: Path):
        self.network = network
        self.workdir = f"{bucket.address}/run"
        self._bucket, self._folder = bucket, folder

    def start(self, host: int) -> programs.Program:
        home = self._folder / f"home{host}"
        home.mkdir(exist_ok=True)
        where = [
            f"--workdir={self.workdir}",
            f"--config.parallel.coordinator={self.network.address(0)}:{_PORT}",
            f"--config.parallel.process_id={host}",
        ]
        environment = programs.environment(num_devices=2) | self._bucket.environment | {"YOLOX_JAX_HOME": str(home)}
        command = [sys.executable, str(programs.ROOT / "train.py"), *_CONFIG, *where]
        return self.network.start(host, command, home, environment)

    def logged(self) -> dict[int, float]:
        """The losses on the disk of host 0, by step: everything that it has logged."""
        (log,) = self._folder.glob("home0/runs/*/metrics.jsonl")
        return _losses(log.read_text())

    def copied(self) -> dict[int, float]:
        """The losses in the bucket, by step."""
        return _losses(self._ask("/run%2Fmetrics.jsonl?alt=media"))

    def has_copied_a_checkpoint(self) -> bool:
        return f"/{manifest.NAME}" in self._ask("")

    def _ask(self, what: str) -> str:
        bucket = f"{self._bucket.endpoint}/storage/v1/b/{self._bucket.address.removeprefix('gs://')}"
        with self.network.on_switch(), urllib.request.urlopen(f"{bucket}/o{what}", timeout=60) as answer:
            return answer.read().decode()


def _losses(log: str) -> dict[int, float]:
    records = map(json.loads, log.splitlines())
    return {record["step"]: record["loss"] for record in records if "loss" in record}


@pytest.fixture
def hosts(tmp_path):
    with contextlib.ExitStack() as opened:
        network = Network(_NUM_HOSTS, tmp_path)
        opened.callback(network.close)
        with network.on_switch():
            endpoint = opened.enter_context(google_server(network.switch_address))
            bucket = google_bucket(endpoint)
        opened.callback(programs.kill_all)
        yield _Hosts(network, bucket, tmp_path)


@pytest.mark.slow
def test_hosts_that_share_only_a_bucket_survive_a_late_start_a_cut_cable_and_a_sigterm_to_one(hosts):
    """The cable is that of process 0, which copies the run to the bucket and holds its claim."""
    running = [hosts.start(host) for host in range(_NUM_HOSTS - 1)]
    running[0].wait_for(lambda: hosts.network.listens(0, _PORT))
    time.sleep(_LATE_S)
    running.append(hosts.start(_NUM_HOSTS - 1))
    running[0].wait_for_step(5)
    running[0].wait_for(hosts.has_copied_a_checkpoint)
    hosts.network.set_cable(0, "down")
    cut = time.monotonic()
    for program in running:
        assert "error: another process of this run was lost" in program.end(70).stderr
    assert time.monotonic() - cut < _SECONDS
    first = hosts.logged()

    hosts.network.set_cable(0, "up")
    running = [hosts.start(host) for host in range(_NUM_HOSTS)]
    running[0].wait_for_step(max(first) + 3)
    running[3].send(signal.SIGTERM)
    output, *_ = [program.end(75).stdout for program in running]
    (resumed,) = map(int, re.findall(f"resuming from step (\\d+) of {hosts.workdir}\n", output))
    (saved,) = map(int, re.findall(f"SIGTERM: saved at step (\\d+) of {hosts.workdir}; the same command", output))
    second = hosts.copied()
    assert list(second) == list(range(saved))
    again = [step for step in first if step >= resumed]  # computed twice
    assert again and [second[step] for step in again] == [first[step] for step in again]
