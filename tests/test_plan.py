import json
from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from helpers import make_folder, make_pairs

from semseg.architectures.packaged_weights import WeightsPackage
from semseg.backend.processes import Processes
from semseg.data import open_dataset
from semseg.data.check import Findings, check_dataset
from semseg.data.thinness import ClassWidth
from semseg.errors import SemsegError
from semseg.losses import effective_number_weights, inverse_frequency_weights
from semseg.runs.config import RunConfig
from semseg.runs.run import Run
from semseg.training import plan as planning
from semseg.training.loop import make_batches
from semseg.training.network import choose_network
from semseg.training.plan import plan_run
from semseg.training.view import View
from semseg.training.weighting import idle_class_weights, make_class_weights

CONFIG = RunConfig(epochs=3, batch_size=4, image_size=(32, 32), filters=4, workers=0)


@pytest.fixture(scope="module")
def findings(dataset):
    return check_dataset(dataset, image_size=(32, 32))


def with_photos(dataset, monkeypatch, count):
    many = (dataset.splits["train"] * count)[:count]
    monkeypatch.setattr(dataset, "splits", {**dataset.splits, "train": many})


def with_package(monkeypatch, installed):
    monkeypatch.setattr(WeightsPackage, "is_installed", installed)


USUAL = replace(CONFIG, filters=16, batch_size=None)
LEARNT = {"model": "encoder_unet", "encoder": "EfficientNetLite0", "encoder_weights": "imagenet", "freeze": "encoder"}
BARE = {"encoder": None, "encoder_weights": None, "freeze": "none"}


class TestNetwork:
    @pytest.mark.parametrize(("photos", "installed", "expected"), [
        (49, True, LEARNT),
        (49, False, {"model": "unet", **BARE}),
        (50, True, {"model": "unet", **BARE}),
        (200, True, {"model": "unet", **BARE}),
    ])  # fmt: skip
    def test_it_follows_the_number_of_photos(self, photos, installed, expected, dataset, monkeypatch):
        with_photos(dataset, monkeypatch, photos)
        with_package(monkeypatch, installed)
        plan = plan_run(USUAL, dataset)
        assert {name: getattr(plan.config, name) for name in expected} == expected
        assert str(photos) in plan.sections["network"]["network"].reason

    @pytest.mark.parametrize(("photos", "expected"), [(199, "fast_unet"), (200, "unet")])
    def test_in_minutes_photos_are_seen_more_often(self, photos, expected, dataset, monkeypatch):
        with_photos(dataset, monkeypatch, photos)
        assert plan_run(replace(USUAL, minutes=3), dataset).config.model == expected

    def test_without_the_package_the_reason_says_what_it_would_bring(self, dataset, monkeypatch):
        with_package(monkeypatch, False)
        assert "[pretrained]" in plan_run(USUAL, dataset).sections["network"]["network"].reason

    @pytest.mark.parametrize(("asked", "expected"), [
        ({"model": "resunet"}, "resunet"),
        ({"encoder": "EfficientNetLite2"}, "encoder_unet"),
        ({"filters": 8}, "unet"),
        ({"image_size": (48, 48)}, "unet"),
        ({"view": "crops"}, "unet"),
        ({"freeze": "none"}, "encoder_unet"),
        ({"precision": "mixed_bfloat16"}, "unet"),
    ])  # fmt: skip
    def test_what_is_asked_for_goes_first(self, asked, expected, dataset, monkeypatch):
        with_package(monkeypatch, True)
        assert plan_run(replace(USUAL, **asked), dataset).config.model == expected

    def test_thin_classes_are_seen_at_the_photos_own_size(self, dataset, monkeypatch):
        with_package(monkeypatch, True)
        for size, thin, expected in (((320, 320), True, "unet"), ((320, 320), False, "encoder_unet"),
                                     ((128, 128), True, "encoder_unet")):  # fmt: skip
            view = View(size, None, None, "", names_width=thin)
            assert choose_network(USUAL, dataset, view).model == expected

    def test_what_is_frozen_may_be_asked_for(self, dataset, monkeypatch):
        with_package(monkeypatch, True)
        assert [plan_run(replace(USUAL, freeze=freeze), dataset).config.freeze for freeze in (None, "none", "2")] == [
            "encoder", "none", "2",
        ]  # fmt: skip

    def test_one_step_of_an_encoder_sees_at_least_two_photos(self, dataset, monkeypatch):
        for installed, expected in ((True, 2), (False, 1)):
            with_package(monkeypatch, installed)
            assert plan_run(USUAL, dataset).batch_size == expected

    def test_weights_of_a_run_go_on_in_its_network(self, dataset, monkeypatch, tmp_path):
        with_package(monkeypatch, True)
        run = Run(tmp_path)
        run.write_config(RunConfig(), {}, {"model": "encoder_unet", "encoder": "EfficientNetLite2"})
        for init in (tmp_path, tmp_path / "unet_model.keras"):
            config = plan_run(replace(USUAL, init=str(init)), dataset).config
            assert (config.model, config.encoder) == ("encoder_unet", "EfficientNetLite2")
            assert config.encoder_weights is None and config.freeze == "none"
        config = plan_run(replace(USUAL, init=str(tmp_path / "alone" / "unet_model.keras")), dataset).config
        assert (config.model, config.encoder) == ("unet", None)


class TestPlan:
    def test_nothing_is_left_open(self, dataset, findings):
        asked = replace(CONFIG, batch_size=None, test_split=None, precision="mixed_float16")
        plan = plan_run(asked, dataset, findings)
        assert (plan.config.batch_size, plan.config.test_split, plan.config.precision) == (1, "val", "float32")
        decided = {"batch_size": 1, "test_split": "val", "precision": "float32", "view": "whole"}
        assert plan.config == replace(asked, **decided, model="unet", freeze="none")
        assert plan.recipe.steps == 3 * 12
        assert plan.class_names == dataset.palette.names
        np.testing.assert_array_equal(plan.class_shares, findings.shares("train"))

    def test_every_decision_has_a_value_in_words_and_a_reason(self, dataset, findings):
        lines = list(plan_run(CONFIG, dataset, findings).lines())
        assert len(lines) > 10
        for section, name, text, reason in lines:
            assert section and name and text and reason, (section, name)

    def test_it_is_saved_as_plain_values_with_reasons(self, dataset, findings):
        plan = plan_run(replace(CONFIG, class_weights="inverse"), dataset, findings)
        saved = json.loads(json.dumps(plan.to_dict(), allow_nan=False))
        assert saved["batches"]["batch_size"] == {"value": 4, "text": "4", "reason": "as asked"}
        assert saved["augment"]["changes"]["value"]["horizontal_flip"] == 0.5
        assert len(saved["loss"]["class_weights"]["value"]) == 19

    def test_the_same_run_is_planned_alike(self, dataset, findings):
        assert plan_run(CONFIG, dataset, findings).to_dict() == plan_run(CONFIG, dataset, findings).to_dict()

    def test_it_cannot_be_changed(self, dataset):
        with pytest.raises(AttributeError):
            plan_run(CONFIG, dataset).config = CONFIG

    @pytest.mark.parametrize("name", ["class_weights", "sample_rare"])
    def test_what_depends_on_the_files_needs_their_findings(self, dataset, name):
        plan = plan_run(replace(CONFIG, **{name: {"class_weights": "inverse"}.get(name, True)}), dataset)
        with pytest.raises(SemsegError, match=f"`{name}`: needs the findings of check_dataset"):
            make_batches(dataset, plan)

    def test_rare_classes_are_drawn_more_often_when_asked_for(self, dataset, findings):
        assert plan_run(CONFIG, dataset, findings).sample_weights is None
        plan = plan_run(replace(CONFIG, sample_rare=True), dataset, findings)
        assert plan.sample_weights.shape == (12,) and plan.sample_weights.min() >= 1
        assert plan.sections["batches"]["sampling"].reason == "as asked"

    def test_compiling_gives_way_to_remat_on_torch(self, dataset):
        plan = plan_run(replace(CONFIG, compile=True, remat=True), dataset)
        on_torch = keras.backend.backend() == "torch"
        assert plan.config.compile is not on_torch
        assert ("does not go with `remat`" in plan.sections["speed"]["compile"].reason) is on_torch


class TestFinalSplit:
    def test_a_test_split_is_judged_where_there_is_one(self, tmp_path):
        make_pairs(tmp_path, train=4, val=2)
        for i in range(2):
            target = tmp_path / "test" / f"{i}.png"
            target.parent.mkdir(exist_ok=True)
            target.write_bytes((tmp_path / "val" / f"{i + 1}.png").read_bytes())
        dataset = open_dataset(tmp_path)
        plan = plan_run(CONFIG, dataset)
        assert plan.config.test_split == "test"
        assert plan.sections["data"]["final_split"].reason == "held out; val chooses the best epoch"
        assert plan_run(replace(CONFIG, test_split="val"), dataset).config.test_split == "val"

    def test_without_one_it_is_said_that_val_chooses_too(self, dataset):
        reason = plan_run(CONFIG, dataset).sections["data"]["final_split"].reason
        assert reason.startswith("there is no test split; val also chooses the best epoch")

    def test_one_that_is_not_there_is_refused(self, dataset):
        with pytest.raises(
            SemsegError, match=r"`test_split`: .* has no split 'holdout'; choose one of train, val, all"
        ):
            plan_run(replace(CONFIG, test_split="holdout"), dataset)


class TestView:
    @pytest.mark.parametrize(
        ("size", "words"),
        [
            ((32, 32), "photos of 32x32 are seen as they are"),
            ((64, 64), "photos of 32x32 are enlarged"),
            ((16, 16), "photos of 32x32 are shrunk 2 times"),
            ((16, 8), "photos of 32x32 are shrunk 4 times across and 2 times down, so shapes are squeezed"),
        ],
    )
    def test_it_says_what_resizing_does_to_the_photos(self, dataset, findings, size, words):
        view = plan_run(replace(CONFIG, image_size=size), dataset, findings).sections["view"]["image_size"]
        assert view.value == list(size) and view.text == f"{size[1]}x{size[0]} pixels"
        assert words in view.reason and view.reason.startswith("as asked")

    @pytest.mark.parametrize(
        ("size", "words"),
        [
            ((32, 32), "context for the network at a bounded cost"),
            ((64, 16), "larger than photos of 32x32: mirror images around them count nowhere, 16x32 is enough"),
        ],
    )
    def test_it_says_that_crops_are_larger_than_the_photos(self, dataset, findings, size, words):
        config = replace(CONFIG, view="crops", scale=1.0, image_size=size)
        assert plan_run(config, dataset, findings).sections["view"]["image_size"].reason == words

    def test_it_names_the_classes_that_become_too_thin(self, dataset, findings, monkeypatch):
        widths = [ClassWidth(9.0, 4.5, 0, 0)] * dataset.palette.num_classes
        for changed, words in (
            ({}, "no class becomes too thin for that"),
            (
                {5: ClassWidth(1.5, 0.75, 12, 30)},
                f"torn or lost: {dataset.palette.names[5]} (1.5 pixels wide, 0.75 there); a larger `image_size`",
            ),
        ):
            found = [changed.get(i, width) for i, width in enumerate(widths)]
            monkeypatch.setattr(type(findings), "class_widths", property(lambda _, found=found: found))
            assert words in plan_run(CONFIG, dataset, findings).sections["view"]["image_size"].reason


class TestBatchSize:
    @pytest.mark.parametrize(
        ("photos", "epochs", "size"),
        [(1, 1, 1), (20, 10, 1), (38, 10, 1), (39, 10, 2), (116, 10, 2), (117, 10, 4), (659, 1, 2), (20_000, 200, 4)],
    )
    def test_short_runs_have_small_batches(self, dataset, monkeypatch, photos, epochs, size):
        with_photos(dataset, monkeypatch, photos)
        decision = plan_run(replace(CONFIG, epochs=epochs, batch_size=None), dataset).sections["batches"]["batch_size"]
        assert decision.value == size
        would_be = f"batches of 4 would give only {epochs * -(-photos // 4)} steps"
        assert decision.reason.startswith("the default" if size == 4 else would_be)

    def test_there_is_a_photo_for_each_process(self, dataset, monkeypatch):
        monkeypatch.setattr(planning, "here", lambda: Processes(count=6))
        decision = plan_run(replace(CONFIG, batch_size=None), dataset).sections["batches"]["batch_size"]
        assert decision.value == 6
        assert decision.reason.startswith("a photo for each of the 6 processes; one alone would take batches of ")
        with pytest.raises(SemsegError, match="got 5 for 6 processes; expected at least as many photos"):
            plan_run(replace(CONFIG, batch_size=5), dataset)

    def test_one_that_was_asked_for_stays(self, dataset):
        plan = plan_run(replace(CONFIG, batch_size=8), dataset)
        assert [batches.batch_size for batches in make_batches(dataset, plan)] == [8, 8]
        assert plan.sections["batches"]["batch_size"].reason == "as asked"

    def test_more_batches_for_a_step_than_there_are_is_refused(self, dataset):
        with pytest.raises(SemsegError, match="`accumulate`: got 10, and the run has 9 batches in all"):
            plan_run(replace(CONFIG, accumulate=10), dataset)


class TestAugmentation:
    @pytest.mark.parametrize(
        ("photos", "epochs", "augment", "expected"),
        [
            (200, 29, None, (0.5, 0, 0, (1, 1))),
            (200, 30, None, (0.5, 3, 0.1, (1, 1))),
            (199, 1, None, (0.5, 3, 0.2, (0.8, 1.25))),
            (199, 200, None, (0.5, 3, 0.2, (0.8, 1.25))),
            (200, 10, "rotation=7", (0.5, 7, 0, (1, 1))),
            (199, 10, "rotation=7", (0.5, 7, 0.2, (0.8, 1.25))),
            (199, 200, "none", (0, 0, 0, (1, 1))),
        ],
    )
    def test_long_runs_are_augmented_more_and_few_photos_most(
        self, dataset, monkeypatch, photos, epochs, augment, expected
    ):
        with_photos(dataset, monkeypatch, photos)
        plan = plan_run(replace(CONFIG, epochs=epochs, augment=augment), dataset)
        train, val = make_batches(dataset, plan)
        changes = train.augmentation
        assert (changes.horizontal_flip, changes.rotation, changes.brightness, changes.scale) == expected
        assert val.augmentation is None

    def test_masks_without_up_and_down_are_turned_every_way_where_the_view_is_square(self, tmp_path):
        dataset = open_dataset(make_folder(tmp_path / "data", count=40))
        findings = check_dataset(dataset, image_size=(32, 32))
        for _, record in findings.records["train"]:  # as many pixels of each class above as below
            record.tops[:] = [count // 2 for count in record.counts[:-1]]
        square = plan_run(CONFIG, dataset, findings)
        wide = plan_run(replace(CONFIG, image_size=(32, 64)), dataset, findings)
        assert (square.augmentation.vertical_flip, square.augmentation.quarter_turns) == (0.5, True)
        assert (wide.augmentation.vertical_flip, wide.augmentation.quarter_turns) == (0.5, False)
        assert "the masks show no up and down" in square.sections["augment"]["changes"].reason
        assert "no quarter turns" in wide.sections["augment"]["changes"].reason

    @pytest.fixture
    def leaning(self, tmp_path):
        """Photos and findings; class 1 leans to one side and class 2 to the other, in masks without an up."""
        dataset = open_dataset(make_folder(tmp_path / "data", count=40))
        findings = check_dataset(dataset, image_size=(32, 32))
        background = [0.0] * 8 + [0.5, 0.0, 0.0] + [50.0, 50.0, 50.0, 9.0, 9.0, 9.0]
        right, left = ([0.0, 0.0, 0.0, axis, *[0.0] * 4, 0.5, -3, -5, 90, 90, 90, 9, 9, 9] for axis in (0.7, -0.7))
        for _, record in findings.records["train"]:
            record.tops[:] = [count // 2 for count in record.counts[:-1]]
            record.poses[:] = [background, right, left]
        return dataset, findings

    def test_flips_that_make_one_class_another_are_left_out(self, leaning):
        dataset, findings = leaning
        one, other = dataset.palette.names[1:3]
        plan = plan_run(CONFIG, dataset, findings)
        changes = plan.augmentation
        assert (changes.horizontal_flip, changes.vertical_flip, changes.quarter_turns) == (0, 0, False)
        assert changes.half_turns
        assert (
            f"{one} and {other} become each other when flipped left-right or flipped up-down or turned by 90 degrees, "
            "so no photo is"
        ) in plan.sections["augment"]["changes"].reason

    def test_flips_that_were_asked_for_stay_with_a_word_of_doubt(self, leaning):
        dataset, findings = leaning
        plan = plan_run(replace(CONFIG, augment="horizontal_flip=0.5,half_turns=0"), dataset, findings)
        assert (plan.augmentation.horizontal_flip, plan.augmentation.half_turns) == (0.5, False)
        reason = plan.sections["augment"]["changes"].reason
        assert reason.startswith("as asked (horizontal_flip=0.5,half_turns=0)")
        assert reason.endswith("become each other when flipped left-right, and cannot be learnt so")
        asked = plan_run(replace(CONFIG, augment="rotation=7"), dataset, findings)
        assert (asked.augmentation.horizontal_flip, asked.augmentation.rotation) == (0, 7)
        assert asked.sections["augment"]["changes"].reason.endswith("turned by 90 degrees, so no photo is")

    def test_street_scenes_are_not_turned_upside_down(self, dataset, findings):
        plan = plan_run(CONFIG, dataset, findings)
        assert plan.augmentation.vertical_flip == 0
        assert "nothing is turned upside down" in plan.sections["augment"]["changes"].reason


class TestLoss:
    @pytest.mark.parametrize("name", ["dice+binary_cross_entropy", "dice+bce"])
    def test_one_for_two_classes_is_refused_for_more(self, dataset, name):
        message = r"`loss`: binary_cross_entropy is for 2 classes, and these data have 19; use one of cross.*lovasz"
        with pytest.raises(SemsegError, match=message):
            plan_run(replace(CONFIG, loss=name), dataset)

    def test_an_idle_weight_is_told(self, dataset, findings):
        plan = plan_run(replace(CONFIG, class_weights="train=3,car=2"), dataset, findings)
        assert "no training photo holds train: the weight is idle" in plan.sections["loss"]["class_weights"].reason
        assert plan.class_weights[dataset.palette.names.index("car")] == 2


class TestClassWeights:
    names = ("road", "sky", "pole")

    records = ([600, 0, 390, 7], [30, 0, 10, 7])
    findings = Findings({"train": [(None, SimpleNamespace(counts=counts)) for counts in records]})

    def weights(self, text):
        return make_class_weights(text, self.findings, self.names)

    def test_they_come_from_the_training_masks_or_as_given(self):
        assert self.weights("none") is None
        np.testing.assert_allclose(self.weights("inverse"), inverse_frequency_weights([630 / 1030, 0, 400 / 1030]))
        np.testing.assert_allclose(self.weights("effective"), effective_number_weights([630, 0, 400]))
        np.testing.assert_array_equal(self.weights("1,2,.5"), [1, 2, 0.5])
        np.testing.assert_array_equal(self.weights("pole=3,road=0"), [0, 1, 3])

    def test_one_for_each_class_is_expected_and_names_must_be_there(self):
        with pytest.raises(SemsegError, match="`class_weights`: got 2 of them; expected 3, for road, sky, pole"):
            self.weights("1,2")
        with pytest.raises(SemsegError, match="there is no class 'car'; choose from road, sky, pole"):
            self.weights("car=2,pole=3")

    def test_weights_that_leave_nothing_to_learn_are_refused(self):
        with pytest.raises(SemsegError, match=r"the training photos all weigh 0; expected .* for one of road, pole"):
            self.weights("0,5,0")

    @pytest.mark.parametrize(("text", "idle"), [("sky=3,pole=2", ["sky"]), ("pole=2", []), ("1,2,3", []), ("none", [])])
    def test_a_weight_for_a_class_that_does_not_occur_is_told(self, text, idle):
        assert idle_class_weights(text, self.findings, self.names) == idle
