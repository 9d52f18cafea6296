"""Training on several devices with JAX: weights on each of them, batches divided among them, and one global program.

An array that lies on several devices is one array to JAX, which sums over all of it. Loss, batch normalisation,
gradients and scores are therefore those of one device that sees the whole batch, whatever the network computes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from semseg import IGNORE

_BATCH = "batch"
_State = tuple[list[jax.Array], ...]


def count_devices() -> int:
    """Devices that this process may compute on."""
    return jax.local_device_count()


def describe_devices() -> str:
    """What they are: `"GPU"`, or `"CPU"`."""
    return jax.local_devices()[0].platform.upper()


@partial(jax.tree_util.register_dataclass, data_fields=("photos", "masks"), meta_fields=("count",))
@dataclass
class _Batch:
    """Photos and masks on all devices, as many on each; those from `count` on fill up and count nowhere."""

    photos: jax.Array
    masks: jax.Array
    count: int


class _Places:
    """Where the parts of a training lie.

    Args:
        devices: Of each process, that many.
        photos: Gives how many photos the batch in hand holds, here and elsewhere; None where all are here.
    """

    def __init__(self, devices: int, photos: Callable[[], int] | None):
        ordered = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
        own: dict[int, list[Any]] = {}
        for device in ordered:
            own.setdefault(device.process_index, []).append(device)
        mesh = Mesh(np.array([device for each in own.values() for device in each[:devices]]), (_BATCH,))
        self.own, self.everywhere = own[jax.process_index()][:devices], NamedSharding(mesh, PartitionSpec())
        self.divided, self.photos, self.parts = NamedSharding(mesh, PartitionSpec(_BATCH)), photos, mesh.size

    def batch(self, photos: Any, masks: Any) -> _Batch:
        """A batch, of which this process has its part, on all devices."""
        count = len(photos) if self.photos is None else self.photos()
        return _Batch(self._divide(photos, count, 0), self._divide(masks, count, IGNORE), count)

    def _divide(self, x: Any, count: int, filling: int) -> jax.Array:
        each = -(-count // self.parts)
        if missing := each * len(self.own) - len(x):
            x = jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1), constant_values=filling)
        parts = [jax.device_put(x[k * each : (k + 1) * each], device) for k, device in enumerate(self.own)]
        shape = (each * self.parts, *x.shape[1:])
        return jax.make_array_from_single_device_arrays(shape, self.divided, parts)

    def whole(self, batch: _Batch) -> tuple[jax.Array, jax.Array]:
        """Within a compiled step: the photos and masks that count; XLA divides them where the numbers do not."""
        divide = partial(jax.lax.with_sharding_constraint, shardings=self.divided)
        return divide(batch.photos[: batch.count]), divide(batch.masks[: batch.count])

    def state(self, state: _State) -> _State:
        """Variables, on all devices; those that are there stay as they are."""
        return jax.tree.map(self._everywhere, state)

    def _everywhere(self, x: jax.Array) -> jax.Array:
        if x.sharding == self.everywhere:
            return x
        copies = [jax.device_put(x, device) for device in self.own]
        return jax.make_array_from_single_device_arrays(x.shape, self.everywhere, copies)


def train_together(model: keras.Model, devices: int, processes: int, photos: Callable[[], int]) -> None:
    """Has a model's `fit` and `evaluate` divide each batch among devices, and those of other processes.

    Args:
        model: Compiled, its optimiser built, with the weights to begin with; the first process gives its own to all.
        devices: Of each process.
        processes: How many.
        photos: Gives how many photos the batch in hand holds in all processes.
    """
    places = _Places(devices, photos if processes > 1 else None)
    if processes > 1:
        variables = [*model.variables, *model.optimizer.variables]
        values = multihost_utils.broadcast_one_to_all([np.asarray(variable.value) for variable in variables])
        for variable, value in zip(variables, values, strict=True):
            variable.assign(np.asarray(value))
    model.train_function = _function(model.train_step, places)
    model.test_function = _function(model.test_step, places)


def _function(step: Callable, places: _Places) -> Callable:
    """What `fit` calls for each batch, with the state and an iterator over batches."""

    @partial(jax.jit, donate_argnums=0, out_shardings=places.everywhere)
    def compiled(state: _State, batch: _Batch) -> tuple[dict[str, jax.Array], _State]:
        return step(state, places.whole(batch))

    def function(state: _State, iterator: Iterable) -> tuple[dict[str, jax.Array], _State]:
        photos, masks, *_ = next(iter(iterator))
        return compiled(places.state(state), places.batch(photos, masks))

    return function


def train_apart(model: keras.Model) -> None:
    """Brings the variables of a model back to one device of this process."""
    for variable in (*model.variables, *model.optimizer.variables, *model.metrics_variables):
        variable.assign(np.array(variable.value))
    model.train_function = model.test_function = None
