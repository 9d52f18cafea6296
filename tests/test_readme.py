"""The README is the front door: short, with its two commands first, and with no figure that the manual lacks."""

import re

import pytest
from manual import README, blocks, read

pytestmark = pytest.mark.plain

TEXT = README.read_text(encoding="utf-8")


def test_it_is_short():
    assert len(TEXT.splitlines()) <= 200


def test_the_two_commands_stand_first():
    commands = [block.text.strip() for block in blocks() if block.page == "README.md" and block.language == "bash"]
    assert commands[0] == "pip install -r requirements.txt && KERAS_BACKEND=torch python main.py --epochs 10"
    assert commands[1] == "pip install -r tests/requirements.txt && python -m pytest -n auto --dist loadfile"


def test_it_shows_a_picture_before_anything_is_to_be_done():
    assert TEXT.index("![") < TEXT.index("```")


def test_its_figures_stand_in_the_manual():
    manual = "".join(map(read, ("benchmarks.md", "recipe.md", "speed.md", "predicting.md")))
    known = set(re.findall(r"[\d,]*\.?\d+", manual))
    good, _ = TEXT.split("## How good")[1].split("## The manual")
    figures = set(re.findall(r"(?<![\w,])(?:[\d,]*\.\d+|\d[\d,]{2,}\b)", good))
    assert len(figures) > 15 and figures <= known, figures - known
