"""What processes on JAX exchange: plain values through its coordinator, and word of who has gone by sockets of ours."""

import itertools
import os
import pickle
import socket
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax._src.distributed import global_state  # where JAX keeps the coordinator's client, and nothing public gives it
from jax.experimental import multihost_utils

from semseg.backend.launchers import JAX_VARIABLES, Launch
from semseg.backend.lifelines import Lifelines, accept, listen, reach
from semseg.errors import ResourceError, first_line

PATIENCE = 86_400_000  # ms; the first process may check or unpack data for long; one that dies is noticed at once
CONNECTING = 300  # seconds
HEARTBEAT = 100  # seconds without one after which JAX ends all; the lifelines notice earlier
_numbers = itertools.count()  # of exchanges, the same in all processes


def connect(launch: Launch) -> None:
    """Joins the others; nothing may have been computed before.

    Raises:
        ResourceError: They cannot be reached.
    """
    jax.config.update("jax_enable_preemption_service", False)  # SIGTERM is ours
    by_hand = launch.launcher == "JAX"
    address = os.environ[JAX_VARIABLES[0]] if by_hand else None
    try:
        jax.distributed.initialize(
            address, launch.count, launch.rank, initialization_timeout=CONNECTING, heartbeat_timeout_seconds=HEARTBEAT
        )
    except (RuntimeError, ValueError) as error:
        raise ResourceError(
            f"rank {launch.rank} of {launch.count} on {socket.gethostname()}: cannot join the others at "
            f"{global_state.coordinator_address} ({first_line(error)}); expected an address that all reach and a free "
            "port"
        ) from error


def connect_lifelines(rank: int, names: list[str], say: Callable[[str], None]) -> Lifelines:
    """The sockets by which each hears of the others' end."""
    if rank == 0:
        server = listen()
        gather(server.getsockname()[1])
        lines = accept(server, len(names) - 1)
    else:
        host = str(global_state.coordinator_address).rpartition(":")[0].strip("[]")
        lines = reach(host, gather(None)[0], rank)
    return Lifelines(rank, names, lines, say)


def gather(value: Any) -> list[Any]:
    """The values of all processes, by rank; they must be picklable."""
    client, number = global_state.client, next(_numbers)
    client.key_value_set_bytes(f"semseg/{number}/{jax.process_index()}", pickle.dumps(value))
    return [
        pickle.loads(client.blocking_key_value_get_bytes(f"semseg/{number}/{rank}", PATIENCE))
        for rank in range(jax.process_count())
    ]


def from_first(compute: Callable[[], Any]) -> Any:
    """What the first process computes, given to all."""
    client, key = global_state.client, f"semseg/{next(_numbers)}"
    if jax.process_index() == 0:
        client.key_value_set_bytes(key, pickle.dumps(compute()))
    return pickle.loads(client.blocking_key_value_get_bytes(key, PATIENCE))


def wait_for_all() -> None:
    """Returns once all have come here."""
    global_state.client.wait_at_barrier(f"semseg/{next(_numbers)}", PATIENCE)


def largest(number: int) -> int:
    """The largest of all processes' numbers; a matter of a millisecond."""
    return int(np.max(multihost_utils.process_allgather(np.int32(number))))


def disconnect() -> None:
    """Leaves the others, after all have come here; what is computed from now on is this process' own."""
    jax.distributed.shutdown()
