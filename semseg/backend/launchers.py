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


def place_among(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """The number of this process among those that work on parts of one thing, from 0 on, and how many there are.

    Known are the variables of torchrun, srun and JAX, arrays of Slurm, whose tasks may have several processes each, and
    an indexed Job of Kubernetes, which needs `JOB_COMPLETIONS` beside its own variables.

    Args:
        environment: The variables.

    Raises:
        SemsegError: They say nothing, or make no sense.

    Example:
        >>> place_among({"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "4"})
        (2, 4)
    """
    launch, number, count = launched(environment), 0, 0
    if "SLURM_ARRAY_TASK_ID" in environment:
        first, step = (_whole(environment, f"SLURM_ARRAY_TASK_{name}", 1) for name in ("MIN", "STEP"))
        number, rest = divmod(_whole(environment, "SLURM_ARRAY_TASK_ID") - first, max(1, step))
        count = _whole(environment, "SLURM_ARRAY_TASK_COUNT")
        if rest or not 0 <= number < count:
            raise SemsegError("SLURM_ARRAY_TASK_ID: the array has gaps; expected one such as 1-8")
    elif "JOB_COMPLETION_INDEX" in environment:
        number, count = _whole(environment, "JOB_COMPLETION_INDEX"), _whole(environment, "JOB_COMPLETIONS")
    elif {"RANK", "WORLD_SIZE"} <= environment.keys():
        return _whole(environment, "RANK"), _whole(environment, "WORLD_SIZE")
    elif not launch.launcher:
        raise SemsegError(
            "`shard`: got auto, and no launcher (torchrun, srun, an array of Slurm, a Job of Kubernetes) says which "
            "part this is; give one such as 1/3"
        )
    if launch.launcher:
        return number * launch.count + launch.rank, max(1, count) * launch.count
    return number, count


def _whole(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, "" if default is None else str(default))
    if not text.isdecimal():
        raise SemsegError(f"{name}: got {text!r}; expected a whole number, as its launcher sets it")
    return int(text)


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
