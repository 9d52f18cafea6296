"""Which launcher started this process as one of several: torchrun, Slurm's srun, or somebody by hand for JAX."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from semseg.errors import SemsegError

JAX_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_SLURM_VARIABLES = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")


@dataclass(frozen=True)
class Launch:
    """How a process was started.

    Attributes:
        launcher: `"torchrun"`, `"JAX"` for the variables of JAX, or `"srun"`; empty for none of them.
        rank: The process' number.
        count: How many there are.
    """

    launcher: str = ""
    rank: int = 0
    count: int = 1


def launched(environment: Mapping[str, str] = os.environ) -> Launch:
    """What the environment says; one process where it says nothing.

    Raises:
        SemsegError: Some variables of JAX are missing, or make no sense.

    Example:
        >>> launched({"RANK": "1", "WORLD_SIZE": "4"})
        Launch(launcher='torchrun', rank=1, count=4)
    """
    if "RANK" in environment and int(environment.get("WORLD_SIZE", "1")) > 1:
        return Launch("torchrun", int(environment["RANK"]), int(environment["WORLD_SIZE"]))
    if any(name in environment for name in JAX_VARIABLES[1:]):
        return _by_hand(environment)
    if all(name in environment for name in _SLURM_VARIABLES) and int(environment["SLURM_NTASKS"]) > 1:
        return Launch("srun", int(environment["SLURM_PROCID"]), int(environment["SLURM_NTASKS"]))
    return Launch()


def _by_hand(environment: Mapping[str, str]) -> Launch:
    address, count, rank = (environment.get(name, "") for name in JAX_VARIABLES)
    usable = count.isdecimal() and rank.isdecimal() and int(rank) < int(count)
    if not usable or not address.rpartition(":")[2].isdecimal() or ":" not in address:
        got = ", ".join(f"{name}={environment.get(name, '')}" for name in JAX_VARIABLES)
        raise SemsegError(
            f"{got}: expected the address of the first process, such as node1:29400, how many processes there are, and "
            "this one's number from 0 on"
        )
    return Launch("JAX", int(rank), int(count)) if int(count) > 1 else Launch()
