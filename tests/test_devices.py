"""What computes here, and how much memory it has: for whichever backend runs the tests."""

import keras
import pytest

from semseg.backend.devices import (
    device_name,
    free_bytes,
    keras_compiles,
    out_of_memory,
    peak_device_bytes,
    usable_precision,
)

BACKEND = keras.backend.backend()


def test_the_device_has_a_name_and_memory():
    assert device_name()
    assert free_bytes() is None or free_bytes() > 1_000_000
    assert peak_device_bytes() is None or peak_device_bytes() >= 0


def test_who_compiles_the_step():
    assert keras_compiles(True) == (BACKEND != "torch")
    assert keras_compiles(False) == (BACKEND == "jax")


def test_float32_can_always_be_had():
    assert usable_precision("float32") == ("float32", "")


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_a_precision_is_usable_or_the_reason_is_said(precision):
    used, why = usable_precision(precision)
    assert (used == precision and not why) or (used == "float32" and why.endswith(("float32", "work", "slow")))


def test_each_backends_word_for_a_lack_of_memory():
    class OutOfMemoryError(Exception):
        pass

    for error in (
        MemoryError(),
        OutOfMemoryError(""),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes"),
    ):
        assert out_of_memory(error), error
    assert not out_of_memory(ValueError("shapes differ"))
