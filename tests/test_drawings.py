"""Pictures are whole, the same for the same runs, and all that is written in them can be read."""

from itertools import combinations

import pytest
from PIL import Image

from experiments.figures import canvas
from experiments.figures.catalogue import FIGURES
from tests.figures import few, groups, many, record, written
from tests.test_image_reports import known, several  # noqa: F401 - a fixture

OF_TEXT = [figure for figure in FIGURES if figure.name != "sparsity-accuracy"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """All pictures of few runs."""
    place = tmp_path_factory.mktemp("figures")
    found = groups(few(tmp_path_factory.mktemp("runs")))
    assert [figure.draw(found, place / figure.name) for figure in OF_TEXT] == [True] * len(OF_TEXT)
    return place


def test_every_picture_is_a_png_1280_pixels_wide_a_pdf_and_an_svg(drawn):
    assert len(list(drawn.iterdir())) == 3 * len(OF_TEXT)
    for figure in OF_TEXT:
        with Image.open(drawn / f"{figure.name}.png") as image:
            image.load()
            assert (image.format, image.size[0]) == ("PNG", 1280)
        assert (drawn / f"{figure.name}.pdf").read_bytes().startswith(b"%PDF")
        assert "</svg>" in (drawn / f"{figure.name}.svg").read_text()


def test_the_same_runs_in_any_order_give_the_same_bytes(drawn, tmp_path):
    found = groups(few(tmp_path / "runs")[::-1])
    for figure in (OF_TEXT[1], OF_TEXT[4]):
        figure.draw(found, tmp_path / figure.name)
        for ending in canvas.FORMATS:
            file = f"{figure.name}.{ending}"
            assert (tmp_path / file).read_bytes() == (drawn / file).read_bytes(), file


def readable(texts):
    """No text leaves its figure, and none covers another."""
    figures = {id(figure): figure for figure, _, _ in texts}
    for key, figure in figures.items():
        mine = {(text, tuple(box.extents.round())): box for owner, text, box in texts if id(owner) == key}
        for (text, _), box in mine.items():
            inside = box.x0 > -1 and box.y0 > -1 and box.x1 < figure.bbox.x1 + 1 and box.y1 < figure.bbox.y1 + 1
            assert inside, f"{text!r} is cut off"
        for ((one, _), a), ((other, _), b) in combinations(mine.items(), 2):
            over = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert min(over) < 2, f"{one!r} covers {other!r}"


@pytest.mark.parametrize("runs", [few, pytest.param(many, marks=pytest.mark.slow)], ids=["few", "many"])
@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_all_text_is_inside_and_none_covers_another(figure, runs, tmp_path, monkeypatch):
    monkeypatch.setattr(canvas, "FORMATS", {"png": {}})
    with written(monkeypatch) as texts:
        assert figure.draw(groups(runs(tmp_path) if figure in OF_TEXT else several()), tmp_path / figure.name)
    assert texts
    readable(texts)


def test_there_is_no_picture_of_nothing(tmp_path):
    bare = record("bare", blocks=0, metrics={}, seconds={}, memory={})
    for runs in ([], [bare]):
        assert [figure.draw(groups(runs), tmp_path / figure.name) for figure in FIGURES] == [False] * len(FIGURES)
    assert not list(tmp_path.iterdir())


def test_one_run_alone_has_the_pictures_that_say_something_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(canvas, "FORMATS", {"png": {}})
    shown = {figure.name for figure in FIGURES if figure.draw(groups([record()]), tmp_path / figure.name)}
    assert shown == {"block-error", "stages"}, "its perplexity beside the dense one is a line of the table"


def test_a_label_breaks_between_words_and_never_inside_brackets():
    label = canvas.beside("KL to the dense model, nats per token (lower is better)")
    assert label.replace("\n", " ") == "KL to the dense model, nats per token (lower is better)"
    assert "(lower is better)" in label and max(map(len, label.splitlines())) <= canvas.LABEL
