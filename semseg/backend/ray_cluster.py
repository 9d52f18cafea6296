"""Tasks on a Ray cluster: on one that is there, or on this computer for as long as they take."""

import logging
import os
import re
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

_QUIET = {  # read by Ray when it is imported, or by the processes that it starts
    "RAY_USAGE_STATS_ENABLED": "0",  # it would report to its makers
    "RAY_enable_metrics_collection": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # and remark on it
    "RAY_task_oom_retries": "1",
}
for _name, _value in _QUIET.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402
import ray.exceptions  # noqa: E402

from semseg.errors import ResourceError, SemsegError, first_line  # noqa: E402

LOCAL = "auto"  # the cluster that is here or that RAY_ADDRESS names; where none is, one of this computer alone
_ANSWER_SECONDS = 10
_ENDING_SECONDS = 2.0  # for tasks to end by themselves when the work is stopped
_OBJECT_BYTES = 100_000_000  # a lot: tasks are given and give back a few lines
_RETRIES = 1  # of a task whose process died


class Cluster:
    """A cluster that this process is connected to."""

    def __init__(self, name: str):
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self._cpus = [int(resources.get("CPU", 0)) for resources in nodes]
        self._gpus = [int(resources.get("GPU", 0)) for resources in nodes]
        self._name = name

    def __str__(self) -> str:
        gpus = f" and {sum(self._gpus)} GPUs" if any(self._gpus) else ""
        return f"{self._name}, {sum(self._cpus)} CPU cores{gpus}"

    def num_cpus(self, threads: int) -> int:
        """CPU cores for each task: as many as it has threads, as far as a node has them."""
        return max(1, min(threads, max(self._cpus, default=0) or threads))

    def at_once(self, threads: int) -> int:
        """How many tasks the cluster can work at now, each with so many threads and, where there are any, a GPU."""
        each = self.num_cpus(threads)
        fitting = [cpus // each for cpus in self._cpus]
        if any(self._gpus):
            fitting = [min(pair) for pair in zip(fitting, self._gpus, strict=True)]
        return max(1, sum(fitting))

    def results(
        self, function: Callable[..., Any], tasks: Mapping[Hashable, tuple], threads: int
    ) -> Iterator[tuple[Hashable, Any]]:
        """Runs all tasks, as many at once as there is room for, and gives the result of each when it is there.

        Tasks that wait are what autoscaling goes by. One whose process dies is begun anew once.

        Args:
            function: At the top of a module that all nodes can import.
            tasks: Arguments by a key.
            threads: Of a task.

        Yields:
            The key, and what the function gave, or a `ResourceError` where its process died again. When the generator
            is closed before its end, tasks that wait are dropped and those that run get a `KeyboardInterrupt`.
        """
        remote = ray.remote(
            num_cpus=self.num_cpus(threads), num_gpus=int(any(self._gpus)), max_calls=0, max_retries=_RETRIES
        )(function)  # max_calls=0: with a GPU, Ray would start a process for each task
        try:
            keys = {remote.remote(*arguments): key for key, arguments in tasks.items()}
        except ModuleNotFoundError as error:  # of a cluster that is asked from outside
            raise _cannot_import(error) from None
        try:
            while keys:
                (done,), _ = ray.wait(list(keys))
                yield keys.pop(done), _result_of(done)
        finally:
            for task in keys:
                ray.cancel(task)
            if keys:
                ray.wait(list(keys), num_returns=len(keys), timeout=_ENDING_SECONDS)


def _result_of(task: Any) -> Any:
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:  # an exception of the function, which is our bug but for this
        if _NO_MODULE in str(error):
            raise _cannot_import(error) from None
        raise
    except ray.exceptions.OutOfMemoryError:
        return ResourceError("its worker was ended again, as the node had no memory left")
    except ray.exceptions.RayError as error:
        how = "its worker died again" if isinstance(error, _DEATHS) else first_line(error)
        return ResourceError(f"{how}; see the logs of Ray on its node, or run the command without it")


def _cannot_import(error: Exception) -> SemsegError:
    module = str(error).rpartition(_NO_MODULE)[2].split()[0].strip("'\".")
    return SemsegError(f"`ray`: the cluster has no {module}; install semseg and a backend on all of its nodes")


_NO_MODULE = "No module named"
_DEATHS = (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError)


@contextmanager
def ray_cluster(address: str) -> Iterator[Cluster]:
    """Connects to a cluster for as long as the block lasts.

    Args:
        address: `"auto"`, `"host:6379"`, or `"ray://host:10001"` for a client from outside.

    Raises:
        SemsegError: That is no address.
        ResourceError: Nobody answers there, or it is another version of Ray or Python.
    """
    asked = address if address != LOCAL else os.environ.get("RAY_ADDRESS", LOCAL)
    if asked != LOCAL:
        _probe(asked)
    listening = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with ExitStack() as stack:
        try:
            stack.callback(ray.shutdown)
            with _silence():
                name = _connect(asked, stack)
        except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
            raise ResourceError(
                f"`ray`: {asked}: {_reason(error)}; see that Ray and Python have its versions, and give the token "
                "of a cluster that has one, as by RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"
            ) from None
        finally:
            _listen_again(listening)
        yield Cluster(name)


def _reason(error: Exception) -> str:
    """A line of what Ray says: of a traceback from elsewhere the last."""
    line = first_line(error)
    return str(error).strip().splitlines()[-1].strip()[:200] if line.endswith(":") else line


def _connect(address: str, stack: ExitStack) -> str:
    ray._private.worker.listen_error_messages = lambda *_: None  # it prints pages where a worker dies
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    if address != LOCAL:
        ray.init(address=address, **({} if address.startswith("ray://") else quiet))
        return f"the cluster at {address}"
    with suppress(ConnectionError):
        ray.init(address=LOCAL, **quiet)
        return "the cluster that is here"
    short = None if os.name == "nt" else os.environ.get("RAY_TMPDIR", "/tmp")  # a socket's path holds 107 letters
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-", dir=short, ignore_cleanup_errors=True))
    stack.enter_context(_token_of_its_own())
    stack.callback(ray.shutdown)  # before the folder goes
    ray.init(
        address="local", include_dashboard=False, object_store_memory=_OBJECT_BYTES, _temp_dir=folder,
        _node_ip_address="127.0.0.1", **quiet,
    )  # fmt: skip
    return "a cluster of this computer alone"


_TOKEN = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@contextmanager
def _token_of_its_own() -> Iterator[None]:
    """Within, a cluster that is started knows a secret that goes with it; Ray would write one into the home folder."""
    before = {name: os.environ[name] for name in _TOKEN if name in os.environ}
    if not before:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    try:
        yield
    finally:
        for name in _TOKEN:
            os.environ.pop(name, None)
        os.environ.update(before)


@contextmanager
def _silence() -> Iterator[None]:
    """Within, nothing goes to standard error, also from C++: Ray writes a line for each second of waiting."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _probe(address: str) -> None:
    """Refuses at once where nobody listens: Ray itself tries for many minutes, and may end the process."""
    match = re.fullmatch(r"(?:ray://)?\[?([^\[\]/]+)\]?:(\d{1,5})", address)
    if not match or int(match[2]) > 65535:
        raise SemsegError(f"`ray`: got {address!r}; expected auto, host:6379, or ray://host:10001")
    try:
        socket.create_connection((match[1], int(match[2])), timeout=_ANSWER_SECONDS).close()
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise ResourceError(
            f"`ray`: no cluster at {address} ({reason}); start one by ray start, or leave the address out"
        ) from None


def _listen_again(before: Mapping[int, Any]) -> None:
    """Ray has put its own handlers in place of those that end a command well."""
    with suppress(ValueError):  # only the main thread may
        for number, handler in before.items():
            signal.signal(number, handler)
