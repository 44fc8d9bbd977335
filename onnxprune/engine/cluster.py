"""Workers of ray: actors on this machine, or on all machines of a cluster."""

from __future__ import annotations

import importlib
import logging
import os
import pickle
import socket
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from onnxprune.engine.parcels import Parcel
from onnxprune.engine.pool import Lost, Pool
from onnxprune.engine.running import using
from onnxprune.engine.worker import Call, Worker
from onnxprune.errors import EngineFailed, MissingPackage

logger = logging.getLogger(__name__)

SECONDS = 10.0
"""How long the machine of an address may take to answer."""
INLINE = 2**16
"""Bytes. A parcel that has no more goes with the call: a place of its own costs more than that."""


@contextmanager
def on_cluster(address: str | None, workers: int, threads: int, device: str) -> Iterator[None]:
    """Run jobs on a ray cluster until the block ends.

    A local cluster is started where there is no address, and stopped at the end; one that this
    process is connected to already is used as it is.
    """
    ray = _ray()
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, address)
    try:
        with using(Pool(RayCrew(ray, workers, threads, device))):
            yield
    finally:
        if ours:
            ray.shutdown()


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise MissingPackage("engine 'ray': needs ray; pip install \"onnxprune[ray]\"") from error


def _connect(ray: Any, address: str | None) -> None:
    options = {"configure_logging": False, "log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        options["include_dashboard"] = False
    try:
        _knock(address)
        ray.init(address=address or "local", **options)
    except Exception as error:  # ray's errors of connecting have no root of their own
        where = f"at {address}" if address else "on this machine"
        raise EngineFailed(
            f"engine 'ray': no cluster {where} ({str(error).splitlines()[0]}); expected the "
            "address of `ray start --head`, or none for a local one"
        ) from error


def _knock(address: str | None) -> None:
    """See that somebody listens, as ray would wait for minutes. Raises: OSError."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), SECONDS).close()


class RayCrew:
    """Actors of ray that run shards, each on so many threads, and on a GPU where there are some."""

    def __init__(self, ray: Any, workers: int, threads: int, device: str) -> None:
        self._ray, self._threads = ray, max(threads, 1)
        has = ray.cluster_resources()
        room = int(has.get("CPU", 1)) // self._threads
        self._gpus = int(device == "cuda" or (device == "auto" and has.get("GPU", 0) > 0))
        if self._gpus:
            room = min(room, int(has.get("GPU", 0)))
        self.size = workers or max(room, 1)
        self.pickler = _with_plugins(ray.cloudpickle)
        self._actor = ray.remote(_Actor)
        exceptions = ray.exceptions
        self._lost = (
            exceptions.RayActorError,
            exceptions.ObjectLostError,
            exceptions.WorkerCrashedError,
            exceptions.NodeDiedError,
            exceptions.OutOfMemoryError,
        )

    def put(self, parcel: Parcel) -> Any:
        """Place a parcel in the object store; a small one needs no place."""
        held = len(parcel.content) + sum(array.nbytes for array in parcel.arrays)
        return parcel if held <= INLINE else self._ray.put(parcel)

    def hire(self) -> Any:
        """Start an actor."""
        count = str(self._threads)
        threads = {f"{name}_NUM_THREADS": count for name in ("OMP", "MKL", "OPENBLAS")}
        room = {"num_cpus": self._threads, "num_gpus": self._gpus}
        return self._actor.options(**room, runtime_env={"env_vars": threads}).remote(sys.path)

    def give(self, worker: Any, call: Call) -> Any:
        """Begin a call; its ticket is a reference to what it returns."""
        return worker.step.remote(call)

    def wait(self, tickets: Collection[Any], seconds: float | None) -> Collection[Any]:
        """Return the tickets that are done."""
        done, left = self._ray.wait(list(tickets), timeout=seconds)
        more = self._ray.wait(left, num_returns=len(left), timeout=0)[0] if done and left else []
        return [*done, *more]

    def result(self, ticket: Any) -> Any:
        """Return what a call returned. Raises: Lost with its actor."""
        try:
            return self._ray.get(ticket)
        except self._lost as error:
            raise Lost(str(error).splitlines()[0]) from error


class _Actor:
    """A worker as ray runs it, which imports what the process that it works for can import."""

    def __init__(self, path: list[str]) -> None:
        import ray

        sys.path += [entry for entry in path if entry not in sys.path]
        self._worker = Worker(lambda one: one if isinstance(one, Parcel) else ray.get(one))

    def step(self, call: Call) -> list[Any]:
        """Return the parts of the next round of some shards, or how it failed."""
        return self._worker.step(call)

    def pid(self) -> int:
        """Return the process that the worker is."""
        return os.getpid()


def _with_plugins(cloudpickle: Any) -> type[pickle.Pickler]:
    """Return a pickler by which the functions of a user's files go to workers, whole.

    These have not imported them.
    """

    class Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
        modules = 0

        def __init__(self, *given: Any, **named: Any) -> None:
            if len(sys.modules) != Pickler.modules:  # a look at all takes a millisecond
                Pickler.modules = len(sys.modules)
                for name, module in list(sys.modules.items()):
                    if name.startswith("_onnxprune_"):
                        cloudpickle.register_pickle_by_value(module)
            super().__init__(*given, **named)

    return Pickler
