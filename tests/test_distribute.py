import os
import subprocess
import sys

import keras
import pytest
from helpers import REPOSITORY

from semseg.distribute import device_name

SAVE = """
import sys
import keras
from semseg.distribute import leave_tensorflow_out
leave_tensorflow_out()
keras.Sequential([keras.Input((3,)), keras.layers.Rescaling(2.0), keras.layers.Dense(2)]).save(sys.argv[1])
print("tensorflow" in sys.modules)
"""


def test_the_device_has_a_name():
    assert any(word in device_name() for word in ("CPU", "GPU", "NVIDIA", "AMD"))


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_saving_a_model_does_not_load_tensorflow_beside_another_backend(backend, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SAVE, str(tmp_path / "model.keras")],
        cwd=REPOSITORY,
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["False"]
    assert keras.saving.load_model(tmp_path / "model.keras").count_params() == 8
