import json
import math

import cv2
import numpy as np
import pytest
from cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling import CArgs, evaluateImgLists

from semseg.errors import SemsegError
from semseg.labels.known_palettes import CITYSCAPES
from semseg.metrics.cityscapes import cityscapes_results
from semseg.metrics.confusion import confusion_matrix

pytestmark = pytest.mark.plain

TRAINED = sorted((train, name, label) for name, label, train, _, _ in CITYSCAPES if train != 255)
NAMES = [name for _, name, _ in TRAINED]
TRAIN_ID = np.full(34, 255)
TRAIN_ID[[label for *_, label in TRAINED]] = range(19)
INSTANCES = ("classInstScores", "categoryInstScores", "averageScoreInstClasses", "averageScoreInstCategories")


def random_labels(seed, true_labels, predicted_labels):
    """Label ids of two images, `(2, H, W)` each: truth and prediction, right in about half of the pixels."""
    rng = np.random.default_rng(seed)
    truth, prediction = rng.choice(true_labels, (2, 40, 50)), rng.choice(predicted_labels, (2, 40, 50))
    right = np.isin(truth, predicted_labels) & (rng.random(truth.shape) < 0.5)
    return truth.astype("uint8"), np.where(right, truth, prediction).astype("uint8")


def their_results(truths, predictions, folder):
    """What cityscapesScripts writes for these label ids."""
    args = CArgs()
    args.evalLabels, args.evalInstLevelScore, args.evalPixelAccuracy = [], False, False
    args.normalized, args.quiet, args.JSONOutput, args.exportFile = True, True, True, str(folder / "results.json")
    paths = {"truth": [], "prediction": []}
    for kind, images in (("truth", truths), ("prediction", predictions)):
        for number, image in enumerate(images):
            paths[kind].append(str(folder / f"{kind}{number}.png"))
            cv2.imwrite(paths[kind][-1], image)
    evaluateImgLists(paths["prediction"], paths["truth"], args)
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def our_results(truths, predictions, names=NAMES):
    order = [NAMES.index(name) for name in names]
    to_class = np.full(256, 255)
    to_class[order] = range(len(names))
    truth, prediction = to_class[TRAIN_ID[truths]], to_class[TRAIN_ID[predictions]]
    return cityscapes_results(confusion_matrix(truth, prediction, len(names)), names)


def assert_equal_scores(ours, expected):
    assert ours.keys() == expected.keys()
    for name, score in expected.items():
        assert (ours[name] is None) if math.isnan(score) else ours[name] == pytest.approx(score), name


@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_those_of_cityscapes_scripts_with_ignored_pixels(tmp_path, seed):
    evaluated = [label for *_, label in TRAINED]
    truths, predictions = random_labels(seed, range(34), evaluated)
    ours, expected = our_results(truths, predictions), their_results(truths, predictions, tmp_path)
    assert ours.keys() == expected.keys()
    assert_equal_scores(ours["classScores"], expected["classScores"])
    assert_equal_scores(ours["categoryScores"], expected["categoryScores"])
    assert ours["averageScoreClasses"] == pytest.approx(expected["averageScoreClasses"])
    assert ours["averageScoreCategories"] == pytest.approx(expected["averageScoreCategories"])
    counted = np.array(expected["confMatrix"])
    counted[TRAIN_ID == 255] = 0
    assert ours["confMatrix"] == counted.tolist()
    assert ours["labels"] == expected["labels"]


def test_everything_but_instances_is_equal_where_nothing_is_ignored_and_classes_are_missing(tmp_path):
    some = [7, 8, 11, 23, 24, 25, 33]
    truths, predictions = random_labels(5, some[:-1], some[1:])
    expected = their_results(truths, predictions, tmp_path)
    some_names = ["bicycle", "road", "sky", "building", "rider", "person", "sidewalk"]
    for ours in (our_results(truths, predictions), our_results(truths, predictions, some_names)):
        for key in ("classScores", "categoryScores", "priors"):
            assert_equal_scores(ours[key], expected[key])
        for key in ("confMatrix", "labels"):
            assert ours[key] == expected[key]
        for key in ("averageScoreClasses", "averageScoreCategories"):
            assert ours[key] == pytest.approx(expected[key])


def test_instance_scores_are_null_under_the_same_keys(tmp_path):
    truths, predictions = random_labels(0, range(34), [7, 8])
    ours, expected = our_results(truths, predictions), their_results(truths, predictions, tmp_path)
    for key in INSTANCES:
        if isinstance(expected[key], dict):
            assert ours[key] == dict.fromkeys(expected[key])
        else:
            assert ours[key] is None


def test_the_results_are_json_even_without_a_pixel():
    results = json.loads(json.dumps(cityscapes_results(np.zeros((19, 19), np.int64), NAMES), allow_nan=False))
    assert results["averageScoreClasses"] is None
    assert set(results["classScores"].values()) == {None}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["road", "caravan"], "does not evaluate 'caravan'; expected some of road, sidewalk"),
        (["road", "tree"], "does not evaluate 'tree'"),
        (["road"], r"got \['road'\]; expected 2 names"),
        (["road", "road"], "expected 2 names, each once"),
    ],
)
def test_names_that_do_not_fit_are_refused(names, message):
    with pytest.raises(SemsegError, match=message):
        cityscapes_results(np.eye(2, dtype=int), names)
