import json

import pytest

from semseg.config import RunConfig
from semseg.errors import SemsegError

pytestmark = pytest.mark.plain


def test_a_saved_run_is_read_back_equal(tmp_path):
    config = RunConfig(data="somewhere", image_size=(96, 128), classes=7)
    config.save(tmp_path / "config.json", task="multiclass")
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved.pop("task") == "multiclass"
    assert RunConfig(**{**saved, "image_size": tuple(saved["image_size"])}) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "--epochs: got 0; expected a whole number of at least 1"),
        ({"classes": 1}, "--classes: got 1; expected a whole number of at least 2"),
        ({"batch_size": -3}, "--batch-size: got -3"),
        ({"learning_rate": 0.0}, "--learning-rate: got 0.0"),
        ({"learning_rate": float("nan")}, "--learning-rate: got nan"),
        ({"image_size": (0, 5)}, "--image-size"),
        ({"seed": 2**32}, "--seed: got 4294967296"),
        ({"workers": -1}, "--workers: got -1"),
    ],
)
def test_senseless_numbers_name_the_flag_and_the_value(values, message):
    with pytest.raises(SemsegError, match=message):
        RunConfig(**values)
