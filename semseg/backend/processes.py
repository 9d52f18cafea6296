"""Processes that train one network together, each on its share of every batch: who they are, and what they exchange.

`torchrun` starts them, and PyTorch's `torch.distributed` carries what they exchange; or Slurm does, or somebody by
hand, and JAX carries it. A process of JAX or TensorFlow may train on several devices. Sums over a batch go over all of
its photos, wherever they are, so that loss, gradients, batch normalisation and scores are those of one device that
sees the whole batch. Variables are therefore the same everywhere at all times.
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
from semseg.backend.launchers import JAX_VARIABLES, Launch, launched
from semseg.backend.lifelines import Lifelines, LostError
from semseg.errors import ResourceError, SemsegError, StopRequest, first_line

if keras.backend.backend() == "torch":
    import torch
    import torch.distributed as dist
elif keras.backend.backend() == "tensorflow":
    from semseg.backend import together_on_tensorflow as together
elif keras.backend.backend() == "jax":
    from semseg.backend import jax_processes
    from semseg.backend import together_on_jax as together

PATIENCE = timedelta(days=1)  # the first process may check or unpack data for long; one that dies is noticed at once
PATIENCE_FOR_NAMES = 15.0  # seconds in which the name of the first process' computer may become known
ROLL_CALL = 2.0  # seconds in which those that live say so, once another one has gone
LISTENING = 2.0  # seconds in which word comes of a process that has gone
HEAD_START = 0.5  # seconds for the first process, which knows what was saved
SHOWN = 40  # letters of a value in a message
BUCKET = 25_000_000  # bytes of gradients that travel together
_Result = TypeVar("_Result")


@dataclass
class Processes:
    """Those that train together.

    Attributes:
        rank: This one's number, 0 to below `count`.
        count: How many there are.
        engine: What carries their tensors: `"gloo"`, or `"nccl"` between GPUs; `"JAX"`.
        hosts: The computer of each.
        devices: That each of them computes on.
        own_photos: Photos of the batch in hand that this process sees; of 0 it holds one that counts nowhere.
        photos: Photos of the batch in hand.
    """

    rank: int = 0
    count: int = 1
    engine: str = ""
    hosts: tuple[str, ...] = ()
    devices: int = 1
    own_photos: int = 0
    photos: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    @property
    def share(self) -> tuple[int, ...]:
        """Of a batch that is this process': see `data.batches.own_places`; on JAX all have parts of one size."""
        return (self.rank, self.count, self.devices) if self.engine == "JAX" else (self.rank, self.count)

    @property
    def parts(self) -> int:
        """Devices of all processes, among which a batch is divided."""
        return self.count * self.devices

    @property
    def sees_all(self) -> bool:
        """Whether the loss has the logits of a whole batch before it, wherever they were computed."""
        return self.parts == 1 or keras.backend.backend() != "torch"

    @property
    def in_words(self) -> tuple[str, str]:
        """How many, such as `"2 processes"`, and the word for one of them."""
        devices = f"{self.devices} devices"
        if self.count == 1:
            return devices, "one device"
        return f"{self.count} processes{' of ' + devices if self.devices > 1 else ''}", "one process"

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
_lifelines: Lifelines | None = None  # by which those on JAX hear of each other's end


def here() -> Processes:
    """The processes that this one belongs to; it alone unless it joined some."""
    return _here


# ---------------------------------------------------------------------------------------------- coming and going


def join(devices: int | None = None, say: Callable[[str], None] = lambda line: None) -> Processes:
    """Joins the processes that a launcher started with this one, and takes devices; nothing happens for one of each.

    Args:
        devices: Of this process, to train on; None for one, or where Slurm or JAX started several processes, for all
            that each may use.
        say: Says the one line of an error where the main thread cannot, as it waits for a process that has gone.

    Returns:
        All of them.

    Raises:
        SemsegError: Keras runs on a backend that cannot do it, there are not as many devices, or the processes cannot
            be connected.
    """
    global _here, _store
    launch, backend = launched(), keras.backend.backend()
    if _here.parts > 1:
        return _here
    _refuse_launch(launch, backend)
    if backend == "jax" and launch.count > 1:
        _join_on_jax(launch, devices, say)
        return _here
    if devices not in (None, 1):
        _here = Processes(devices=_own_devices(devices))
    if launch.launcher == "torchrun":
        _store, engine = _connect(launch.rank, launch.count)
        hosts: list[str] = [""] * launch.count
        dist.all_gather_object(hosts, socket.gethostname())
        _here = Processes(launch.rank, launch.count, engine, tuple(hosts))
    return _here


def _refuse_launch(launch: Launch, backend: str) -> None:
    """Refuses several processes of a backend that the launcher does not connect."""
    start = f"`backend`: got {backend} for {launch.count} processes, rank {launch.rank} on {socket.gethostname()}; "
    if launch.launcher == "torchrun" and backend == "jax":
        raise SemsegError(f"{start}torchrun connects processes of PyTorch: start those of JAX by srun, or each with "
                          f"{', '.join(JAX_VARIABLES)}")  # fmt: skip
    if (launch.count > 1 and backend == "tensorflow") or (launch.launcher == "JAX" and backend == "torch"):
        raise SemsegError(f"{start}expected torch, started by torchrun, or jax, started by srun")


def _own_devices(devices: int | None) -> int:
    """So many of this computer, refused where there are fewer."""
    if devices in (None, 1):
        return 1
    if keras.backend.backend() == "torch":
        raise SemsegError(f"`devices`: got {devices}; PyTorch trains on several by its launcher, torchrun")
    found = together.count_devices()
    if devices > found:
        what = f"one {together.describe_devices()}" if found == 1 else f"{found} {together.describe_devices()}s"
        raise SemsegError(f"`devices`: got {devices}; {keras.backend.backend()} finds {what} here: expected at most "
                          f"{found}")  # fmt: skip
    return devices


def _join_on_jax(launch: Launch, devices: int | None, say: Callable[[str], None]) -> None:
    global _here, _lifelines
    jax_processes.connect(launch)
    found = together.count_devices()
    everyones = jax_processes.gather((socket.gethostname(), devices or found, found))
    hosts = tuple(host for host, _, _ in everyones)
    _here = Processes(launch.rank, launch.count, "JAX", hosts, devices or found)
    _lifelines = jax_processes.connect_lifelines(launch.rank, [_here.name(rank) for rank in range(launch.count)], say)
    _refuse_uneven(everyones)


def _refuse_uneven(everyones: Sequence[tuple[str, int, int]]) -> None:
    """Refuses processes of different numbers of devices; all know it, one says it."""
    for rank, (_, wanted, found) in enumerate(everyones):
        text = ""
        if wanted > found:
            text = f"`devices`: got {wanted}; {_here.name(rank)} finds {found}"
        elif wanted != everyones[0][1]:
            text = f"{_here.name(rank)} differs: devices {wanted} (rank 0: {everyones[0][1]}); expected as many of all"
        if text:
            raise SemsegError(text)


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
    global _here, _lifelines
    if _here.count > 1 and _lifelines:
        jax_processes.wait_for_all()
        _lifelines.part()
        _lifelines = None
        jax_processes.disconnect()
    elif _here.count > 1:
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
    if _lifelines:
        return _last_words_on_jax(_lifelines, message, own)
    if not message:
        return None
    line = message if message.startswith("rank ") else f"{_here.name(_here.rank)}: {message}"
    try:
        if not own:
            return _words_of_survivor(message)
        return line if _speaks_first() else None
    except RuntimeError:  # the store went with the process or the agent that held it
        return line if own else None


def _last_words_on_jax(lifelines: Lifelines, message: str, own: bool) -> str | None:
    if own and message:
        line = message if message.startswith("rank ") else f"{_here.name(_here.rank)}: {message}"
        return line if lifelines.may_speak() else None
    if lifelines.gone is not None:
        return lifelines.words(_beyond(message)) if lifelines.may_speak() else None
    if message and _here.is_first and lifelines.may_speak():  # someone asked all to end
        return message
    lifelines.part()
    return None


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


def raise_if_lost(error: Exception) -> None:
    """Raises a `LostError` where another process has gone, which JAX tells by errors of many kinds.

    Args:
        error: What was raised.
    """
    if _lifelines and not isinstance(error, SemsegError) and _lifelines.is_lost(LISTENING):
        raise LostError(f"{_here.name(_here.rank)}: lost the others ({first_line(error)})") from error


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
    if _lifelines:
        return jax_processes.from_first(compute)
    result = [compute() if _here.is_first else None]
    with _noticing():
        dist.broadcast_object_list(result)
    return result[0]  # type: ignore[return-value]  # filled in by now


@contextmanager
def one_per_host_before_others() -> Iterator[None]:
    """Within, the first process of each computer works alone; the others follow, and find in caches what it left."""
    waits = _here.count > 1 and not _is_first_of_host()
    if waits:
        _wait_for_all()
    yield
    if _here.count > 1 and not waits:
        _wait_for_all()


def _is_first_of_host() -> bool:
    if _lifelines:
        return _here.hosts.index(_here.hosts[_here.rank]) == _here.rank
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _wait_for_all() -> None:
    if _lifelines:
        jax_processes.wait_for_all()
    else:
        _reduce(torch.zeros(1))


def agreed(request: StopRequest | None) -> StopRequest | None:
    """What all are to end with after this batch: the request that one of them has, or None."""
    if _here.count == 1:
        return request
    own = request.exit_code if request else 0
    code = jax_processes.largest(own) if _lifelines else int(_reduce(torch.tensor([own]), "MAX"))
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
    everyones = _gathered(dict(facts))
    for rank, theirs in enumerate(everyones):
        differing = [name for name in {**everyones[0], **theirs} if theirs.get(name) != everyones[0].get(name)]
        if differing:
            told = "; ".join(_told(name, str(theirs.get(name)), str(everyones[0].get(name))) for name in differing[:3])
            text = f"{_here.name(rank)} differs: {told}; start all processes with the same flags, versions and data"
            is_first = _here.is_first
            leave()  # in order: JAX aborts a process whose first one has ended
            raise SemsegError(text if is_first else "")  # all know it, one says it


def _told(name: str, theirs: str, own: str) -> str:
    """A fact and both values, of long ones the place where they part."""
    alike = (one == other for one, other in zip(theirs, own, strict=False))
    start = next((place for place, same in enumerate(alike) if not same), min(len(theirs), len(own)))
    first = max(0, start - 8) if max(len(theirs), len(own)) > SHOWN else 0
    theirs, own = (value[first : first + SHOWN] + "..." * (len(value) > first + SHOWN) for value in (theirs, own))
    return f"{name} {'...' * bool(first)}{theirs} (rank 0: {'...' * bool(first)}{own})"


def _gathered(value: _Result) -> list[_Result]:
    """The values of all processes, by rank."""
    if _lifelines:
        return jax_processes.gather(value)
    everyones = [value] * _here.count
    with _noticing():
        dist.all_gather_object(everyones, value)
    return everyones


# ---------------------------------------------------------------------------------------------------- a model


def train_together(model: keras.Model) -> None:
    """Makes processes and devices train one model: equal variables, mean gradients, and a mean loss over all photos.

    Args:
        model: Compiled, its optimiser built, with the weights to begin with; the first process gives its own to all.

    Raises:
        SemsegError: Batch normalisation in it that only sees its own process' photos.
    """
    if _here.parts == 1:
        return
    if keras.backend.backend() != "jax":
        _refuse_partial_statistics(model)
    if keras.backend.backend() != "torch":
        together.train_together(model, _here.devices, _here.count, lambda: _here.photos)
        return
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


def train_apart(model: keras.Model) -> None:
    """Brings what `train_together` spread over devices back to one of this process, before it leaves the others."""
    if _here.parts > 1 and keras.backend.backend() != "torch":
        together.train_apart(model)


def _refuse_partial_statistics(model: Any) -> None:
    for layer in model.called_layers:
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
            raise SemsegError(
                f"`model`: its layer {layer.name!r} normalises the batch inside another layer, where {_here.parts} "
                "devices cannot do it together; put it into the graph, or use one"
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
