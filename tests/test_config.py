import json

import pytest

from semseg.errors import SemsegError
from semseg.runs.config import RunConfig, parse_class_weights

pytestmark = pytest.mark.plain


def test_a_saved_run_is_read_back_equal(tmp_path):
    config = RunConfig(data="somewhere", image_size=(96, 128), classes=7, class_weights="1,2", label_smoothing=0.1)
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
        ({"accumulate": 0}, "--accumulate: got 0; expected a whole number of at least 1"),
        ({"precision": "half"}, "--precision: got 'half'; expected one of float32, mixed_bfloat16, mixed_float16"),
        ({"workers": -1}, "--workers: got -1"),
        ({"label_smoothing": 1.0}, "--label-smoothing: got 1.0; expected 0 to below 1"),
        ({"label_smoothing": -0.1}, "--label-smoothing: got -0.1"),
        ({"label_smoothing": float("nan")}, "--label-smoothing: got nan"),
    ],
)
def test_senseless_numbers_name_the_flag_and_the_value(values, message):
    with pytest.raises(SemsegError, match=message):
        RunConfig(**values)


def test_class_weights_are_numbers_for_all_or_for_some_by_name():
    assert parse_class_weights("1,2, .5") == [1, 2, 0.5]
    assert parse_class_weights("3") == [3]
    assert parse_class_weights("road=0, traffic light=2.5") == {"road": 0, "traffic light": 2.5}
    for how in ("none", "inverse", "effective", "1,2,.5", "road=3"):
        assert RunConfig(class_weights=how).class_weights == how


@pytest.mark.parametrize("text", ["rare", "", "1,,2", "1,-2", "nan,1", "1,inf", "road=x", "road=1,2", "road=1,road=2"])
def test_senseless_class_weights_say_what_was_expected(text):
    message = f"--class-weights: got {text!r}; expected none, inverse, effective, a number of at least 0 for each class"
    with pytest.raises(SemsegError, match=message):
        RunConfig(class_weights=text)
