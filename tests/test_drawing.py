"""Pictures that another process draws."""

import os
import signal

import numpy as np
import pytest

from semseg.cli import drawing
from semseg.labels.palettes import Palette
from semseg.report import save_confusion_matrix, show_predictions

pytestmark = pytest.mark.plain

MATRIX, NAMES = np.array([[90, 10], [5, 45]]), ["road", "car"]


@pytest.fixture(params=[0, 1], ids=["here", "in a process"])
def processes(request, monkeypatch):
    monkeypatch.setattr(drawing, "PROCESSES", request.param)
    return request.param


def test_pictures_are_those_that_the_functions_draw(tmp_path, processes):
    palette, generator = Palette.numbered(3), np.random.default_rng(0)
    photo = generator.integers(0, 256, (40, 60, 3), np.uint8)
    samples = [("a.jpg", photo, photo[..., 0] % 3, photo[..., 1] % 3)]
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    with drawing.Drawing() as pictures:
        pictures.draw("save_confusion_matrix", MATRIX, NAMES, path=tmp_path / "there/matrix.png")
        pictures.draw("show_predictions", samples, palette, tmp_path / "there", [(0.5, 0.25)])
        pictures.finish()
    save_confusion_matrix(MATRIX, NAMES, tmp_path / "here/matrix.png")
    show_predictions(samples, palette, tmp_path / "here", [(0.5, 0.25)])
    drawn = {path.name: path.read_bytes() for path in (tmp_path / "there").iterdir()}
    assert drawn.keys() == {"matrix.png", "pred_1.png"}
    assert drawn == {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()}


def test_what_went_wrong_is_raised_where_pictures_are_waited_for(tmp_path, processes):
    (tmp_path / "file").write_text("no folder")
    with drawing.Drawing() as pictures:
        pictures.draw("save_confusion_matrix", MATRIX, NAMES, tmp_path / "file" / "matrix.png")
        with pytest.raises(OSError, match="file") as caught:
            pictures.finish()
    assert str(tmp_path / "file") in str(caught.value.filename)


def test_a_process_that_dies_costs_no_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "PROCESSES", 1)
    with drawing.Drawing() as pictures:
        pictures.draw("save_confusion_matrix", MATRIX, NAMES, tmp_path / "first.png")
        while not (tmp_path / "first.png").is_file():
            pass
        os.kill(pictures._workers._started[0].pid, signal.SIGKILL)
        pictures.draw("save_confusion_matrix", MATRIX, NAMES, tmp_path / "second.png")
        pictures.finish()
    assert (tmp_path / "second.png").read_bytes() == (tmp_path / "first.png").read_bytes()


def test_what_is_not_drawn_yet_is_given_up_at_the_end(tmp_path, processes):
    with pytest.raises(KeyboardInterrupt), drawing.Drawing() as pictures:
        for number in range(50):
            pictures.draw("save_confusion_matrix", MATRIX, NAMES, tmp_path / f"{number}.png")
        raise KeyboardInterrupt
    written = {path.name for path in tmp_path.iterdir()}
    assert len(written) < 10 and all(name.endswith(".png") and not name.startswith(".") for name in written)
