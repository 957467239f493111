"""Hosts with addresses of their own on one machine: Linux network namespaces, joined by a switch in one more."""

import contextlib
import ctypes
import itertools
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import programs

_NET = "10.77.0"  # seen inside the namespaces only
_libc = ctypes.CDLL(None, use_errno=True)
_number = itertools.count()


class Network:
    """A switch, which is a host itself and has an address, and hosts 0, 1 … plugged into it."""

    switch_address = f"{_NET}.254"

    def __init__(self, num_hosts: int, folder: Path):
        """Skips the test if this user may not make namespaces. `folder` gets the hosts' /etc/hosts."""
        if os.geteuid() or not shutil.which("ip"):
            pytest.skip("network namespaces need root and iproute2")
        self._names: list[str] = []
        self._folder = folder
        self._prefix = f"yolox{os.getpid()}-{next(_number)}-"
        try:
            switch = self._add("switch")
            _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
            _ip("-n", switch, "addr", "add", f"{self.switch_address}/24", "dev", "bridge")
            _ip("-n", switch, "link", "set", "bridge", "up")
            for host in range(num_hosts):
                self._plug_in(self._add(str(host)), host, switch)
        except subprocess.CalledProcessError as error:
            self.close()
            pytest.skip(f"this machine allows no network namespaces: {error.stderr.decode().strip()}")

    def _add(self, name: str) -> str:
        name = self._prefix + name
        _ip("netns", "add", name)
        self._names.append(name)
        _ip("-n", name, "link", "set", "lo", "up")
        return name

    def _plug_in(self, name: str, host: int, switch: str) -> None:
        _ip("-n", switch, "link", "add", f"port{host}", "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("-n", switch, "link", "set", f"port{host}", "master", "bridge", "up")
        _ip("-n", name, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
        _ip("-n", name, "link", "set", "eth0", "up")
        # A host's own name leads to its own address, by which the others reach it.
        hosts = f"127.0.0.1 localhost\n{self.address(host)} {socket.gethostname()}\n"
        (self._folder / f"hosts{host}").write_text(hosts)

    def address(self, host: int) -> str:
        return f"{_NET}.{host + 1}"

    def set_cable(self, host: int, state: str) -> None:
        """Unplugs a host ("down"), or plugs it in again ("up")."""
        _ip("-n", self._prefix + "switch", "link", "set", f"port{host}", state)

    def start(self, host: int, command: list[str], cwd: Path, environment: dict[str, str]) -> programs.Program:
        """Starts a program on a host."""
        enter = ["ip", "netns", "exec", f"{self._prefix}{host}"]
        with_hosts = ["sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', str(self._folder / f"hosts{host}")]
        return programs.Program([*enter, *with_hosts, *command], cwd, environment)

    @contextlib.contextmanager
    def on_switch(self) -> Iterator[None]:
        """Makes the sockets that this thread opens inside the block those of the switch."""
        with open("/proc/thread-self/ns/net") as before, open(f"/run/netns/{self._prefix}switch") as switch:
            _enter(switch.fileno())
            try:
                yield
            finally:
                _enter(before.fileno())

    def listens(self, host: int, port: int) -> bool:
        """Returns whether a program on the host listens at the port."""
        return f":{port} " in _ip("netns", "exec", f"{self._prefix}{host}", "ss", "--listening", "--tcp", "--numeric")

    def close(self) -> None:
        for name in self._names:
            _ip("netns", "delete", name)


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True).stdout.decode()


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, 0):
        raise OSError(ctypes.get_errno(), "this thread cannot enter a network namespace")
