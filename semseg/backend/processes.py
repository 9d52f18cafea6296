"""Processes that train one network together, each on its share of every batch: who they are, and what they exchange.

`torchrun` starts them, and PyTorch's `torch.distributed` carries what they exchange. Sums over a batch go over all of
its photos, wherever they are, so that loss, gradients, batch normalisation and scores are those of one process that
sees the whole batch. Variables are therefore the same in all processes at all times.
"""

import os
import platform
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import keras

from semseg import __version__
from semseg.errors import ResourceError, SemsegError, StopRequest, first_line

if keras.backend.backend() == "torch":
    import torch
    import torch.distributed as dist

PATIENCE = timedelta(days=1)  # the first process may check or unpack data for long; one that dies is noticed at once
PATIENCE_FOR_NAMES = 15.0  # seconds in which the name of the first process' computer may become known
ROLL_CALL = 2.0  # seconds in which those that live say so, once another one has gone
HEAD_START = 0.5  # seconds for the first process, which knows what was saved
SHOWN = 40  # letters of a value in a message
BUCKET = 25_000_000  # bytes of gradients that travel together
_Result = TypeVar("_Result")


class LostError(ResourceError):
    """Another process has gone (exit code 6)."""


@dataclass
class Processes:
    """Those that train together.

    Attributes:
        rank: This one's number, 0 to below `count`.
        count: How many there are.
        engine: What carries their tensors: `"gloo"`, or `"nccl"` between GPUs.
        hosts: The computer of each.
        own_photos: Photos of the batch in hand that this process sees; of 0 it holds one that counts nowhere.
        photos: Photos of the batch in hand.
    """

    rank: int = 0
    count: int = 1
    engine: str = ""
    hosts: tuple[str, ...] = ()
    own_photos: int = 0
    photos: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    @property
    def share(self) -> tuple[int, int]:
        """Rank and count."""
        return self.rank, self.count

    def name(self, rank: int) -> str:
        """What a process is called in messages."""
        return f"rank {rank} of {self.count} on {self.hosts[rank] if self.hosts else socket.gethostname()}"

    def __str__(self) -> str:
        """How many on which computers, and what connects them."""
        hosts = list(dict.fromkeys(self.hosts))
        where = hosts[0] if len(hosts) == 1 else f"{len(hosts)} hosts ({', '.join(hosts)})"
        return f"{self.count} on {where}, connected by {self.engine}"


_alone = Processes()
_here = _alone
_store: Any = None  # where processes leave words for each other, also when one of them has gone


def here() -> Processes:
    """The processes that this one belongs to; it alone unless it joined some."""
    return _here


# ---------------------------------------------------------------------------------------------- coming and going


def join() -> Processes:
    """Joins the processes that `torchrun` started with this one; nothing happens where it started just one, or none.

    Returns:
        All of them.

    Raises:
        SemsegError: Keras runs on another backend than PyTorch, or they cannot be connected.
    """
    global _here, _store
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1 or "RANK" not in os.environ or _here.count > 1:
        return _here
    rank, backend = int(os.environ["RANK"]), keras.backend.backend()
    if backend != "torch":
        raise SemsegError(f"`backend`: got {backend} for {count} processes, rank {rank} on {socket.gethostname()}; "
                          "torchrun connects processes of PyTorch: use torch, or one process")  # fmt: skip
    _store, engine = _connect(rank, count)
    hosts: list[str] = [""] * count
    dist.all_gather_object(hosts, socket.gethostname())
    _here = Processes(rank, count, engine, tuple(hosts))
    return _here


def _connect(rank: int, count: int) -> tuple[Any, str]:
    """The store, and the name of the engine."""
    if not dist.is_available():
        raise SemsegError(f"torch {torch.__version__}: is built without torch.distributed; use one process")
    engine = _take_device()
    try:
        _find_host(os.environ.get("MASTER_ADDR", "localhost"))
        store, *_ = next(dist.rendezvous("env://", rank, count, timeout=timedelta(minutes=5)))
        store.set_timeout(PATIENCE)
        both = "cpu:gloo,cuda:nccl" if engine == "nccl" else "gloo"
        dist.init_process_group(both, store=store, rank=rank, world_size=count, timeout=PATIENCE)
    except (RuntimeError, ValueError, OSError) as error:
        where = f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"
        raise ResourceError(
            f"rank {rank} of {count} on {socket.gethostname()}: cannot join the others at {where} "
            f"({first_line(error)}); give torchrun an address that all reach and a free port"
        ) from error
    return store, engine


def _find_host(name: str) -> None:
    """Asks for an address, which torch does for minutes; one that is to come up is waited for a little."""
    end = time.monotonic() + PATIENCE_FOR_NAMES
    while True:
        try:
            socket.getaddrinfo(name, None)
            return
        except socket.gaierror:
            if time.monotonic() > end:
                raise
        time.sleep(1)


def _take_device() -> str:
    """Chooses this process' GPU, if there is one; returns the engine that suits."""
    if not torch.cuda.is_available():
        return "gloo"
    gpus, number = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK", "0"))
    torch.cuda.set_device(number % gpus)
    alone = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) <= gpus
    return "nccl" if alone and dist.is_nccl_available() else "gloo"


def leave() -> None:
    """Leaves the others, after all have come here; the process goes on alone."""
    global _here
    if _here.count > 1:
        _reduce(torch.zeros(1))
        dist.destroy_process_group()
        _here = _alone


def last_words(message: str, own: bool) -> str | None:
    """What a process that ends by an error is to say, so that one of all says it and names the one that caused it.

    Args:
        message: The error; empty where the first process says it.
        own: Whether it arose here; otherwise others have gone, or someone asked all to end.

    Returns:
        The one line, or None where another process says it.
    """
    if _here.count == 1:
        return message
    if not message:
        return None
    line = message if message.startswith("rank ") else f"{_here.name(_here.rank)}: {message}"
    try:
        if not own:
            return _words_of_survivor(message)
        return line if _speaks_first() else None
    except RuntimeError:  # the store went with the process or the agent that held it
        return line if own else None


def _speaks_first() -> bool:
    return _store.add("told", 1) == 1


def _words_of_survivor(message: str) -> str | None:
    """Names the process that has gone; where none has, someone asked all to end, and the first process says so."""
    missing = _missing()
    if not missing:
        return message if _here.is_first and _speaks_first() else None
    if not _here.is_first and 0 not in missing:
        time.sleep(HEAD_START)
    if not _speaks_first():
        return None
    return f"{_here.name(missing[0])}: has gone without a word (killed, or short of memory?); {_beyond(message)}"


def _beyond(message: str) -> str:
    """What a message says after its cause."""
    _, separator, beyond = message.rpartition("; ")
    return beyond if separator else "the same command goes on from the last state that was saved"


def _missing() -> list[int]:
    """The processes that do not answer; none if somebody has spoken already."""
    _store.set(f"here/{_here.rank}", "")
    end, waiting = time.monotonic() + ROLL_CALL, list(range(_here.count))
    while waiting and time.monotonic() < end and not _store.check(["told"]):
        waiting = [rank for rank in waiting if not _store.check([f"here/{rank}"])]
        time.sleep(0.05)
    return waiting


# ------------------------------------------------------------------------------------------------ what is exchanged


def _reduce(x: "torch.Tensor", how: str = "SUM") -> "torch.Tensor":
    """The sum, or the largest, of a tensor over all processes, in its place."""
    with _noticing():
        dist.all_reduce(x, getattr(dist.ReduceOp, how))
    return x


@contextmanager
def _noticing() -> Iterator[None]:
    """Tells an error of the connection from others."""
    try:
        yield
    except RuntimeError as error:
        raise LostError(f"{_here.name(_here.rank)}: lost the others ({first_line(error)})") from error


def sum_over_processes(x: "torch.Tensor") -> "torch.Tensor":
    """The sum of a tensor over all processes, in its place; its own value where there is only one."""
    return x if _here.count == 1 else _reduce(x)


def first(compute: Callable[[], _Result]) -> _Result:
    """What the first process computes, given to all; the others wait.

    Args:
        compute: Called in the first process alone; what it returns must be picklable.
    """
    if _here.count == 1:
        return compute()
    result = [compute() if _here.is_first else None]
    with _noticing():
        dist.broadcast_object_list(result)
    return result[0]  # type: ignore[return-value]  # filled in by now


@contextmanager
def one_per_host_before_others() -> Iterator[None]:
    """Within, the first process of each computer works alone; the others follow, and find in caches what it left."""
    waits = _here.count > 1 and os.environ.get("LOCAL_RANK", "0") != "0"
    if waits:
        _reduce(torch.zeros(1))
    yield
    if _here.count > 1 and not waits:
        _reduce(torch.zeros(1))


def agreed(request: StopRequest | None) -> StopRequest | None:
    """What all are to end with after this batch: the request that one of them has, or None."""
    if _here.count == 1:
        return request
    code = int(_reduce(torch.tensor([request.exit_code if request else 0]), "MAX"))
    if not code or (request and request.exit_code == code):
        return request
    return StopRequest("a word to another process", code)


def versions() -> dict[str, str]:
    """Of what computes, by name."""
    backend = keras.backend.backend()
    return {
        "semseg": __version__,
        "Keras": keras.__version__,
        backend: sys.modules[backend].__version__,
        "Python": platform.python_version(),
    }


def refuse_differing(facts: Mapping[str, Any]) -> None:
    """Compares facts over all processes.

    Args:
        facts: Plain values by name, the same everywhere.

    Raises:
        SemsegError: They differ; it names the process, the fact and both values.
    """
    if _here.count == 1:
        return
    everyones: list[Mapping[str, Any]] = [{}] * _here.count
    with _noticing():
        dist.all_gather_object(everyones, dict(facts))
    for rank, theirs in enumerate(everyones):
        differing = [name for name in {**everyones[0], **theirs} if theirs.get(name) != everyones[0].get(name)]
        if differing:
            told = "; ".join(_told(name, str(theirs.get(name)), str(everyones[0].get(name))) for name in differing[:3])
            text = f"{_here.name(rank)} differs: {told}; start all processes with the same flags, versions and data"
            raise SemsegError(text if _here.is_first else "")  # all know it, one says it


def _told(name: str, theirs: str, own: str) -> str:
    """A fact and both values, of long ones the place where they part."""
    alike = (one == other for one, other in zip(theirs, own, strict=False))
    start = next((place for place, same in enumerate(alike) if not same), min(len(theirs), len(own)))
    first = max(0, start - 8) if max(len(theirs), len(own)) > SHOWN else 0
    theirs, own = (value[first : first + SHOWN] + "..." * (len(value) > first + SHOWN) for value in (theirs, own))
    return f"{name} {'...' * bool(first)}{theirs} (rank 0: {'...' * bool(first)}{own})"


# ---------------------------------------------------------------------------------------------------- a model


def train_together(model: keras.Model) -> None:
    """Makes the processes train one model: equal variables, mean gradients, and a mean loss over all photos.

    Args:
        model: Compiled, its optimiser built, with the weights to begin with; the first process gives its own to all.

    Raises:
        SemsegError: Batch normalisation in it that only sees its own process' photos.
    """
    if _here.count == 1:
        return
    _refuse_partial_statistics(model)
    with torch.no_grad(), _noticing():
        for variable in (*model.variables, *model.optimizer.variables):
            values = variable.value.data.contiguous()
            dist.broadcast(values, 0)
            variable.value.data.copy_(values)
    apply, update = model.optimizer.apply, model._loss_tracker.update_state

    def apply_mean(gradients: Sequence[Any], variables: Sequence[keras.Variable] | None = None) -> None:
        _take_means([gradient for gradient in gradients if gradient is not None])
        apply(gradients, variables)

    def update_by_photos(loss: Any, sample_weight: Any = None) -> None:
        update(loss, sample_weight=_here.photos)

    model.optimizer.apply, model._loss_tracker.update_state = apply_mean, update_by_photos


def _refuse_partial_statistics(model: Any) -> None:
    for layer in model.called_layers:
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
            raise SemsegError(
                f"`model`: its layer {layer.name!r} normalises the batch inside another layer, where {_here.count} "
                "processes cannot do it together; put it into the graph, or use one process"
            )


def _take_means(gradients: Sequence["torch.Tensor"]) -> None:
    """Replaces gradients by their means over all processes, some at a time."""
    with torch.no_grad():
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            _reduce(flat).div_(_here.count)
            parts = flat.split([gradient.numel() for gradient in bucket])
            for gradient, part in zip(bucket, parts, strict=True):
                gradient.copy_(part.view_as(gradient))


def _buckets(gradients: Sequence["torch.Tensor"]) -> Iterator[list["torch.Tensor"]]:
    bucket: list[torch.Tensor] = []
    size = 0
    for gradient in gradients:
        bucket.append(gradient)
        size += gradient.numel() * gradient.element_size()
        if size >= BUCKET:
            yield bucket
            bucket, size = [], 0
    if bucket:
        yield bucket
