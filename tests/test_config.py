import json
import re

import pytest

from semseg.errors import RunFolderError, SemsegError
from semseg.files import write_json
from semseg.runs.config import SECTIONS, RunConfig, parse_class_weights, read_config, section_of

pytestmark = pytest.mark.plain


def test_a_saved_run_is_read_back_equal(tmp_path):
    config = RunConfig(data="somewhere", image_size=(96, 128), classes=7, class_weights="1,2", label_smoothing=0.1)
    write_json(tmp_path / "config.json", {**config.to_dict(), "plan": {}, "facts": {"task": "multiclass"}})
    found, values = read_config(tmp_path / "config.json")
    assert found == config
    assert values["facts"] == {"task": "multiclass"}
    assert values["data"]["classes"] == 7 and values["training"]["label_smoothing"] == 0.1


def test_every_setting_belongs_to_one_section_of_the_file():
    values = RunConfig().to_dict()
    assert list(values) == ["format", *SECTIONS]
    settings = [name for section in SECTIONS for name in values[section]]
    assert sorted(settings) == sorted(RunConfig.__dataclass_fields__)
    assert all(name in values[section_of(name)] for name in settings)


def test_a_file_of_the_earlier_form_without_sections_is_read(tmp_path):
    earlier = {"data": "d", "image_size": [32, 64], "epochs": 3, "task": "binary", "recipe": {"steps": 9}, "found": {}}
    write_json(tmp_path / "config.json", earlier)
    assert read_config(tmp_path / "config.json")[0] == RunConfig(data="d", image_size=(32, 64), epochs=3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": 3, "data": {}}, "is of form 3, and this version of semseg reads up to 2"),
        ({"format": 2, "training": {"epoch": 3}}, "there is no setting 'epoch'; expected accumulate, "),
        ({"format": 2, "data": {}, "train": {}}, "there is no section 'train'; expected data, network, training"),
        ({"format": 2, "training": {"epochs": "many"}}, "`epochs`: got 'many'; expected a whole number"),
        ({"format": 2, "training": {"epochs": True}}, "`epochs`: got True; expected a whole number"),
        ({"format": 2, "speed": {"compile": 1}}, "`compile`: got 1; expected true or false"),
        ({"format": 2, "training": {"epochs": 0}}, "`epochs`: got 0; expected a whole number of at least 1"),
        ({"format": 2, "network": {"image_size": [32]}}, "`image_size`: got (32,); expected two whole numbers"),
        ({"format": 2, "network": {"image_size": "64"}}, "`image_size`: got '64'; expected two whole numbers"),
        ({"format": 2, "network": {"image_size": [64.5, 64]}}, "expected two whole numbers"),
        ({"format": 2}, "its sections hold no settings of a run"),
        ({"format": 2, "data": 7}, "its section 'data' holds no settings"),
        ({"macro_iou": 0.5}, "it holds no settings of a run"),
        ([1, 2], "expected an object with settings"),
    ],
)
def test_a_file_that_is_no_configuration_says_what_is_wrong_and_where(tmp_path, values, message):
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(RunFolderError, match=re.escape(str(tmp_path / "config.json"))) as caught:
        read_config(tmp_path / "config.json")
    assert message in str(caught.value)


def test_settings_of_a_later_version_can_be_left_aside(tmp_path):
    values = RunConfig(epochs=4).to_dict()
    values["training"]["novelty"] = 1
    values["resume"] = {"every": 5}
    write_json(tmp_path / "config.json", values)
    assert read_config(tmp_path / "config.json", ignore_unknown=True)[0] == RunConfig(epochs=4)
    with pytest.raises(RunFolderError, match="there is no section 'resume'"):
        read_config(tmp_path / "config.json")


def test_what_is_missing_or_damaged_is_told(tmp_path):
    with pytest.raises(RunFolderError, match=r"holds no config\.json; expected the folder of a run"):
        read_config(tmp_path / "config.json")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RunFolderError, match="cannot be read"):
        read_config(tmp_path / "config.json")
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(RunFolderError, match="cannot be read"):
        read_config(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"filters": 10**6}, "`filters`: got 1000000; expected at most 8192"),
        ({"epochs": 0}, "`epochs`: got 0; expected a whole number of at least 1"),
        ({"classes": 1}, "`classes`: got 1; expected a whole number of at least 2"),
        ({"batch_size": -3}, "`batch_size`: got -3"),
        ({"learning_rate": 0.0}, "`learning_rate`: got 0.0"),
        ({"learning_rate": float("nan")}, "`learning_rate`: got nan"),
        ({"image_size": (0, 5)}, r"`image_size`: got \(0, 5\)"),
        ({"seed": 2**32}, "`seed`: got 4294967296"),
        ({"accumulate": 0}, "`accumulate`: got 0; expected a whole number of at least 1"),
        ({"precision": "half"}, "`precision`: got 'half'; expected one of float32, mixed_bfloat16, mixed_float16"),
        ({"workers": -1}, "`workers`: got -1"),
        ({"label_smoothing": 1.0}, "`label_smoothing`: got 1.0; expected 0 to below 1"),
        ({"label_smoothing": -0.1}, "`label_smoothing`: got -0.1"),
        ({"label_smoothing": float("nan")}, "`label_smoothing`: got nan"),
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
    message = f"`class_weights`: got {text!r}; expected none, inverse, effective, a number of at least 0 for each class"
    with pytest.raises(SemsegError, match=message):
        RunConfig(class_weights=text)
