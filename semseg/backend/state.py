"""What a training changes while it runs, as NumPy arrays: variables, and the generators of random numbers."""

import random
from collections.abc import Sequence

import keras
import numpy as np
from keras.src.random.seed_generator import global_seed_generator

from semseg.backend.processes import here

if keras.backend.backend() == "torch":
    import torch
elif keras.backend.backend() == "jax":
    import jax


def synchronise(model: keras.Model) -> None:
    """Brings the variables of a model up to date in the middle of `fit`, and waits until they are computed.

    JAX keeps them to itself there, and goes on before a step has ended, as PyTorch does on a GPU.
    """
    if keras.backend.backend() == "jax":
        model.jax_state_sync()
        jax.block_until_ready([variable.value for variable in model.variables])
    elif keras.backend.backend() == "torch" and torch.cuda.is_available():
        torch.cuda.synchronize()


def is_whole_after_error() -> bool:
    """Whether a step whose batch did not come leaves all variables as they were.

    TensorFlow asks for the batch within its graph, which may have moved counters and seeds on before.
    """
    return keras.backend.backend() != "tensorflow"


def arrays_of(variables: Sequence[keras.Variable], group: str) -> dict[str, np.ndarray]:
    """Copies of variables, named by a group and their place in it."""
    return {
        f"{group}.{place:04}": np.array(keras.ops.convert_to_numpy(variable))
        for place, variable in enumerate(variables)
    }


def assign(variables: Sequence[keras.Variable], group: str, arrays: dict[str, np.ndarray]) -> None:
    """Gives variables the values that `arrays_of` copied.

    Raises:
        ValueError: The arrays are of other variables.
    """
    saved = [array for name, array in sorted(arrays.items()) if name.startswith(f"{group}.")]
    if [array.shape for array in saved] != [tuple(variable.shape) for variable in variables]:
        raise ValueError(f"{len(saved)} {group} arrays of other shapes than the network's {len(variables)}")
    for variable, array in zip(variables, saved, strict=True):
        variable.assign(array)


def random_state() -> dict[str, np.ndarray]:
    """The generators of Python, NumPy and Keras, as arrays by name; that of PyTorch is seeded for every batch."""
    version, words, gauss = random.getstate()
    _, keys, place, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": np.array([version, *words], np.uint64),
        "python_gauss": np.array([np.nan if gauss is None else gauss]),
        "numpy": np.array([*keys, place, has_gauss], np.uint64),
        "numpy_gauss": np.array([cached]),
        "keras": np.array(keras.ops.convert_to_numpy(global_seed_generator().state)),
    }


def seed_batch(seed: int, epoch: int, batch: int) -> None:
    """Makes what PyTorch draws for a batch depend on nothing but these three: its loaders draw in between, too.

    Processes that train together draw for photos of their own, and each draws differently.
    """
    if keras.backend.backend() == "torch":
        torch.manual_seed(int(np.random.default_rng([seed, epoch, batch, here().rank]).integers(2**63)))


def set_random_state(state: dict[str, np.ndarray]) -> None:
    """Puts the generators of `random_state` where they were."""
    version, *words = map(int, state["python"])
    gauss = float(state["python_gauss"][0])
    random.setstate((version, tuple(words), None if np.isnan(gauss) else gauss))
    *keys, place, has_gauss = map(int, state["numpy"])
    np.random.set_state(("MT19937", np.array(keys, np.uint32), place, has_gauss, float(state["numpy_gauss"][0])))
    global_seed_generator().state.assign(state["keras"])
