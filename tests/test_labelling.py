import csv
import json

import cv2
import numpy as np
import pytest
from helpers import draw_ids, draw_pair, make_pairs
from PIL import Image

from semseg.cli import commands
from semseg.data import open_dataset
from semseg.errors import DataError, SemsegError
from semseg.files import write_csv
from semseg.inference.segmenter import Segmenter
from semseg.labelling.doubts import HeldOut, better_label, find_doubts, self_confidence, show
from semseg.labelling.suggesting import answer_of, answers_to, choose, entropy
from semseg.labels.palettes import Palette, cityscapes_palette
from semseg.runs.suggestions import suggested_among

SMALL = ["--image-size", "32", "--filters", "4", "--model", "unet", "--epochs", "1", "--learning-rate", "0.01"]


@pytest.mark.plain
class TestOrder:
    PHOTOS = ("new/a.jpg", "new/b.jpg", "old/a.jpg", "old/c.jpg", "d.jpg")

    def test_nothing_was_suggested(self, tmp_path):
        assert suggested_among(self.PHOTOS, tmp_path / "missing") == []

    def test_photos_to_label_come_before_labels_to_look_at_again(self, tmp_path):
        to_label = ["d.jpg", "b.jpg", "a.jpg", "e.jpg"]  # two photos are called a.jpg, and none e.jpg
        write_csv(tmp_path / "suggestions.csv", [{"photo": name} for name in to_label])
        doubtful = {"old/c.jpg": 0.2, "d.jpg": 0.1, "new/a.jpg": 0.0}
        write_csv(tmp_path / "doubtful.csv", [{"photo": name, "doubtful_share": s} for name, s in doubtful.items()])
        assert suggested_among(self.PHOTOS, tmp_path) == ["d.jpg", "new/b.jpg", "old/c.jpg"]

    @pytest.mark.parametrize("content", [b"name\na.jpg\n", b"photo\n\xff\n"])
    def test_a_table_that_is_none_is_refused_in_one_line(self, tmp_path, content):
        (tmp_path / "suggestions.csv").write_bytes(content)
        with pytest.raises(
            DataError, match=r"suggestions\.csv: cannot be read .*; make it anew by suggest, or remove it"
        ):
            suggested_among(self.PHOTOS, tmp_path)


@pytest.mark.plain
class TestUncertainty:
    def test_entropy_is_a_share_of_what_is_possible(self):
        thirds = np.full((2, 3), 1 / 3)
        assert entropy(thirds) == pytest.approx([1, 1])
        p = np.array([0.5, 0.25, 0.25])
        assert entropy(p) == pytest.approx(1.5 * np.log(2) / np.log(3))

    def test_one_network_is_uncertain_where_its_classes_are_alike(self):
        answer = answer_of([np.array([[[1.0, 0.0], [0.5, 0.5]]])])
        assert answer.uncertainty.tolist() == [[0, 1]] and answer.score == 0.5

    def test_several_are_uncertain_where_they_disagree_and_not_where_all_doubt(self):
        one = np.array([[[1.0, 0.0], [0.5, 0.5], [1.0, 0.0]]])
        other = np.array([[[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]]])
        answer = answer_of([one, other])
        assert answer.uncertainty == pytest.approx(np.array([[1, 0, 0]]), abs=1e-6)
        assert answer.probabilities[0, 0].tolist() == [0.5, 0.5]

    def test_features_are_of_length_one_and_tell_where_classes_lie(self):
        rng = np.random.default_rng(0)
        raw = rng.random((20, 24, 3))
        answer = answer_of([raw / raw.sum(axis=-1, keepdims=True)])
        assert answer.features.shape == (48,) and np.linalg.norm(answer.features) == pytest.approx(1, abs=1e-5)
        left = np.zeros((8, 8, 2))
        left[:, :4, 0], left[:, 4:, 1] = 1, 1
        same, turned = answer_of([left]).features, answer_of([left[:, ::-1]]).features
        assert np.linalg.norm(same - turned) == pytest.approx(np.sqrt(2))

    def test_photos_are_seen_as_the_network_sees_them(self):
        seen = []

        def predict(photos):
            seen.append(photos.shape)
            return photos[..., :1] * 0.0

        segmenter = Segmenter(predict, (8, 12), Palette.numbered(2))
        answer = answers_to([segmenter, segmenter], np.zeros((30, 40, 3), np.uint8))
        assert seen == [(1, 8, 12, 3)] * 2 and answer.score == 0


@pytest.mark.plain
class TestChoice:
    def test_the_least_certain_comes_first_and_its_copies_last(self):
        features = np.array([[0.0, 0], [0, 0], [1, 0], [0, 1]])
        chosen = choose([0.9, 0.8, 0.1, 0.1], features, 4)
        assert chosen[0] == 0 and chosen[-1] == 1 and sorted(chosen) == [0, 1, 2, 3]

    def test_what_is_certain_is_drawn_when_nothing_else_is_left(self):
        assert choose([0.5, 0.0, 0.0], np.eye(3), 2) in ([0, 1], [0, 2])
        assert sorted(choose([0.0, 0.0], np.zeros((2, 3)), 5)) == [0, 1]

    def test_chances_grow_with_uncertainty_and_with_the_square_of_the_distance(self):
        features = np.array([[0.0], [1.0], [2.0]])
        seconds = [choose([1.0, 0.8, 0.2], features, 2, seed)[1] for seed in range(400)]
        assert seconds.count(1) / 400 == pytest.approx(0.5, abs=0.08)  # 0.8 * 1 against 0.2 * 4

    def test_the_same_seed_draws_the_same(self):
        rng = np.random.default_rng(0)
        scores, features = rng.random(50), rng.random((50, 4))
        assert choose(scores, features, 10, 1) == choose(scores, features, 10, 1) != choose(scores, features, 10, 2)

    def test_none_are_refused(self):
        with pytest.raises(SemsegError, match="`count`: got 0; expected at least 1"):
            choose([0.5], np.zeros((1, 2)), 0)


@pytest.mark.plain
class TestConfidentLearning:
    def test_thresholds_are_the_mean_probability_of_the_labelled_class(self):
        probabilities = np.array([[[0.8, 0.2], [0.6, 0.4], [0.1, 0.9], [0.5, 0.5]]])
        sums, counts = self_confidence(probabilities, np.array([[0, 0, 1, 255]], np.uint8))
        assert sums == pytest.approx([1.4, 0.9]) and counts.tolist() == [2, 1]

    def test_a_pixel_changes_where_the_network_is_sure_of_another_class_alone(self):
        probabilities = np.array([[[0.05, 0.8, 0.15], [0.3, 0.6, 0.1], [0.2, 0.1, 0.7], [0.1, 0.9, 0]]])
        label = np.array([[0, 0, 1, 255]], np.uint8)
        assert better_label(probabilities, label, np.array([0.7, 0.7, 0.6])).tolist() == [[1, 0, 2, 255]]

    def test_of_two_sure_classes_the_more_probable_one_counts(self):
        probabilities = np.array([[[0.45, 0.55]]])
        assert better_label(probabilities, np.array([[0]], np.uint8), np.array([0.4, 0.5])).tolist() == [[1]]
        assert better_label(probabilities, np.array([[1]], np.uint8), np.array([0.4, 0.5])).tolist() == [[1]]

    def test_a_class_that_nobody_labelled_is_never_suggested(self):
        probabilities = np.array([[[0.0, 1.0]]])
        assert better_label(probabilities, np.array([[0]], np.uint8), np.array([0.5, np.inf])).tolist() == [[0]]


def spoilt(ids, kind, seed):
    """A label with an error in it, of a scene that `draw_ids` drew."""
    if kind == "another":
        return np.roll(draw_ids(seed + 1000), 13, axis=1)[::-1]
    wrong = ids.copy()
    if kind == "swapped":
        wrong[ids == 0], wrong[ids == 2] = 2, 0
    else:
        wrong[ids == 13] = 0
    return wrong


class _Scenes:
    """A data set in memory whose photos hold their true ids, for a network that reads them with some mistakes."""

    def __init__(self, kind, root):
        rng = np.random.default_rng(1)
        self.root, self.palette, self.bands = root, cityscapes_palette(), Segmenter(None, (32, 32), None).bands
        self.truths = [draw_ids(i) for i in range(100)]
        self.wrong = set(rng.choice(100, 10, replace=False).tolist())
        self.labels = [spoilt(ids, kind, i) if i in self.wrong else ids for i, ids in enumerate(self.truths)]

    def load(self, number):
        return np.repeat(self.truths[number][..., None], 3, axis=2), self.labels[number]


def unsteady_network(photos):
    """Logits of the true ids, blurred as a network's, with spots where it is wrong."""
    logits = []
    for photo in photos:
        rng = np.random.default_rng(int(photo.sum()))
        noisy = 4.0 * (photo[..., :1] == np.arange(19)) + rng.normal(0, 1.5, (*photo.shape[:2], 19))
        logits.append(cv2.GaussianBlur(noisy, (7, 7), 1.5))
    return np.stack(logits).astype(np.float32)


@pytest.mark.plain
class TestPlantedErrors:
    @pytest.mark.parametrize(("kind", "least"), [("another", 0.8), ("swapped", 0.8), ("missing", 0.8)])
    def test_spoilt_labels_come_first(self, kind, least, tmp_path, monkeypatch):
        monkeypatch.setattr("semseg.labelling.doubts.in_hand", lambda path: open(__file__))  # noqa: PTH123, SIM115
        scenes = _Scenes(kind, tmp_path)
        samples = [type("Sample", (int,), {"photo": tmp_path})(i) for i in range(100)]
        segmenter = Segmenter(unsteady_network, (32, 32), scenes.palette)
        halves = [HeldOut(segmenter, scenes, samples[:50], "a"), HeldOut(segmenter, scenes, samples[50:], "b")]
        steps = []
        doubts, thresholds = find_doubts(halves, lambda done, total: steps.append((done, total)))
        first = {int(doubt.sample) for doubt in doubts[:10]}
        assert len(first & scenes.wrong) / 10 >= least
        assert steps[-1] == (200, 200) and thresholds.shape == (19,)
        worst = doubts[0]
        seen = show(worst, thresholds)
        assert (seen.better != seen.label).mean() == pytest.approx(worst.share * (seen.label != 255).mean())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of one epoch, its data, and photos without labels."""
    root = tmp_path_factory.mktemp("labelling")
    data = make_pairs(root / "data", train=6, val=3)
    (root / "photos").mkdir()
    for i in range(5):
        Image.fromarray(draw_pair(300 + i)[0]).save(root / "photos" / f"{i}.png")
    (root / "photos" / "broken.png").write_bytes(b"no picture")
    assert commands(["train", "--data", str(data), "--output", str(root / "run"), *SMALL]) == 0
    return root


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.plain
class TestTheCommand:
    def test_photos_are_suggested_with_pre_labels(self, trained, tmp_path, capsys):
        words = ["suggest", str(trained / "run"), str(trained / "photos"), "--count", "3", "--polygons", "coco"]
        assert commands([*words, "--output", str(tmp_path)]) == 0
        said = capsys.readouterr().out
        assert "skipped" in said and "broken.png" in said and "3 of 5 photos" in said
        rows = rows_of(tmp_path / "suggestions.csv")
        assert [row["rank"] for row in rows] == ["1", "2", "3"] and rows[0]["uncertainty_rank"] == "1"
        assert all(cv2.imread(str(tmp_path / row["mask"])).shape[:2] == (32, 32) for row in rows)
        assert len(json.loads((tmp_path / "coco.json").read_text())["images"]) == 3
        assert cv2.imread(str(tmp_path / "suggestions.png")).std() > 5
        assert commands([*words, "--output", str(tmp_path)]) == 0
        assert "moved the suggestions of before to" in capsys.readouterr().out

    def test_photos_of_the_run_are_left_out(self, trained, tmp_path, capsys):
        words = ["suggest", str(trained / "run"), str(trained / "data"), "--output", str(tmp_path / "s")]
        assert commands(words) != 0
        assert "all 9 photos have labels in the run; give others, or --labels" in capsys.readouterr().err
        assert not (tmp_path / "s").exists()

    def test_labels_of_the_validation_split_are_ranked(self, trained, tmp_path, capsys):
        assert commands(["suggest", str(trained / "run"), "--labels", "--output", str(tmp_path)]) == 0
        assert "3 photos, judged by the run, of its val" in capsys.readouterr().out
        rows = rows_of(tmp_path / "doubtful.csv")
        val = {sample.photo.name for sample in open_dataset(trained / "data").splits["val"]}
        assert {row["photo"].rpartition("/")[2] for row in rows} == val
        agreements = [float(row["agreement"]) for row in rows]
        assert agreements == sorted(agreements)

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ([], "suggest: give either photos"),
            (["photos", "--labels"], "suggest: give either photos"),
            (["photos", "--count", "0"], "--count: got 0; expected at least 1"),
            (["--labels", "--polygons", "coco"], "--polygons: is for pre-labels"),
            (["photos", "--polygons", "svg"], "svg"),
            (["nowhere"], "nowhere: no such file"),
        ],
    )
    def test_what_makes_no_sense_is_one_line(self, trained, words, message, capsys, monkeypatch, tmp_path):
        monkeypatch.chdir(trained)
        assert commands(["suggest", "run", *words, "--output", str(tmp_path / "s")]) != 0
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1 and not (tmp_path / "s").exists()
