"""Network namespaces of our own: one for the control plane with a bridge, one for each pod, joined by that bridge.

The kernel gives every thread a network namespace. A thread of ours moves into one, opens sockets or starts children
there, and moves back; sockets and children stay. Nothing in there has a way out.
"""

import ctypes
import os
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

NODE_ADDRESS = "10.244.0.1"
"""Where the API server and the kubelet port answer. An API server refuses loopback addresses as endpoints."""

_PREFIX = "splitproof-mesh"
_FILES = Path("/run/netns")
_CLONE_NEWNET = 0x40000000


@dataclass(frozen=True)
class Namespace:
    """A network namespace by its name, which begins with the id of the process that made it."""

    name: str
    _numbers: Iterator[int] = field(default_factory=lambda: count(1), repr=False, compare=False)


@contextmanager
def made() -> Iterator[Namespace]:
    """A namespace with a bridge on which the node has its address; it is gone afterwards, with its pods' own."""
    _sweep()
    namespace = Namespace(f"{_PREFIX}-{os.getpid()}-{secrets.token_hex(2)}")
    name = namespace.name
    try:
        _ip([f"netns add {name}"])
        _ip(["link set lo up", "link add mesh0 type bridge", "link set mesh0 up"], name)
        _ip([f"addr add {NODE_ADDRESS}/16 dev mesh0"], name)
        yield namespace
    finally:
        _delete(name)


def make_pod(namespace: Namespace, address: str) -> Namespace:
    """A namespace for a pod, with its address on the bridge of the node's."""
    number = next(namespace._numbers)
    pod = Namespace(f"{namespace.name}-{number}")
    _ip([f"netns add {pod.name}"])
    # The hardware address follows from the address: who knew an earlier pod by it need not ask anew, for seconds.
    hardware = ":".join(["0a", "58", *(f"{int(part):02x}" for part in address.split("."))])
    peer = f"peer name eth0 address {hardware} netns {pod.name}"
    _ip([f"link add pod{number} type veth {peer}"], namespace.name)
    _ip([f"link set pod{number} master mesh0", f"link set pod{number} up"], namespace.name)
    _ip(["link set lo up", f"addr add {address}/16 dev eth0", "link set eth0 up"], pod.name)
    return pod


def delete_pod(pod: Namespace) -> None:
    """Remove a pod's namespace; the kernel removes its end of the bridge with it."""
    _ip([f"netns delete {pod.name}"])


@contextmanager
def inside(namespace: Namespace) -> Iterator[None]:
    """Put this thread into a namespace; other threads are not moved."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        there = os.open(_FILES / namespace.name, os.O_RDONLY)
        try:
            _enter(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _enter(before)
    finally:
        os.close(before)


def _enter(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def _ip(commands: Sequence[str], name: str | None = None) -> None:
    command = ["ip", *(["-n", name] if name else []), "-batch", "-"]
    done = subprocess.run(command, input="\n".join(commands), capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {'; '.join(commands)}: {' '.join(done.stderr.split())}")


def _names() -> list[str]:
    return [path.name for path in _FILES.glob(f"{_PREFIX}-*")] if _FILES.exists() else []


def _delete(name: str) -> None:
    """Remove a namespace and those of its pods."""
    for each in _names():
        if each == name or each.startswith(f"{name}-"):
            _ip([f"netns delete {each}"])


def _sweep() -> None:
    """Remove what a run left behind whose process was killed."""
    folders = [path.name for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}-*")]
    for name in {*_names(), *folders}:
        found = re.match(rf"{_PREFIX}-(\d+)-", name)
        if found and not Path(f"/proc/{found[1]}").exists():
            if name in _names():
                _ip([f"netns delete {name}"])
            shutil.rmtree(Path(tempfile.gettempdir()) / name, ignore_errors=True)
