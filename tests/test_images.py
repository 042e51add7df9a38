"""Images as data: the same from a folder, an archive and a table; held out, drawn and numbered as said."""

import io
import logging
import random
import tarfile

import numpy
import pyarrow
import pyarrow.parquet
import pytest
import torch
from datasets import load_dataset
from PIL import Image
from transformers import AutoConfig

from experiments.data import hub_images
from experiments.data.digits import Digits
from experiments.data.hub_images import HubImages, Rows
from experiments.data.images import Files, ImageFiles, batches, decode, held
from experiments.data.windows import facts_of, sha256_of
from experiments.models.vision import reader
from tests.pictures import CLASSES, folder, model, picture


@pytest.fixture(scope="module")
def eye(tmp_path_factory):
    """How a tiny classifier reads images."""
    place = model(tmp_path_factory.mktemp("model"))
    return reader(str(place), place, AutoConfig.from_pretrained(place))


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The same images as a folder, a .tar, a .tar.gz and a .parquet."""
    here = tmp_path_factory.mktemp("images")
    top = folder(here / "set")
    for name, mode in (("set.tar", "w"), ("set.tar.gz", "w:gz")):
        with tarfile.open(here / name, mode) as archive:
            archive.add(top, "set")
    files = sorted(top.rglob("*.png"))
    rows = {"image": [{"bytes": file.read_bytes(), "path": None} for file in files]}
    rows["label"] = [CLASSES.index(file.parent.name) for file in files]
    pyarrow.parquet.write_table(pyarrow.table(rows), here / "set.parquet")
    return here


def everything(source, eye):
    """All images of the held-out part."""
    album = source.album("evaluation")
    (found,) = batches(album, range(len(album)), eye, 1000)
    return found


@pytest.mark.parametrize("kind", ["set.tar", "set.tar.gz", "set.parquet"])
def test_a_folder_an_archive_and_a_table_are_the_same_images(here, eye, kind):
    source, other = (ImageFiles(str(here / name), images=7) for name in ("set", kind))
    assert other.name == "set"
    assert sha256_of(source.calibration(eye, 0)) == sha256_of(other.calibration(eye, 0))
    assert sha256_of(everything(source, eye)) == sha256_of(everything(other, eye))


def test_pixels_are_what_the_processor_makes_of_each_image_alone(here, eye):
    found = everything(ImageFiles(str(here / "set")), eye)
    image = picture(104).resize((16, 16), Image.Resampling.BILINEAR)  # the fifth of kind1
    expected = (numpy.asarray(image, dtype=numpy.float32) / 255 - 0.5) / 0.25
    torch.testing.assert_close(found.pixels[1], torch.from_numpy(expected).permute(2, 0, 1), atol=1e-6, rtol=0)
    assert found.labels.tolist() == list(range(10))


def test_the_last_of_each_class_are_held_out_and_nothing_is_calibrated_on_them():
    classes = ["a"] * 10 + ["b"] * 5 + ["a"] * 10
    rest, out = held(classes, 0.2, "calibration"), held(classes, 0.2, "evaluation")
    assert sorted(rest + out) == list(range(25))
    assert out == [14, 21, 22, 23, 24]
    with pytest.raises(ValueError, match="no image is left for evaluation: the last 0% of each class are held out"):
        held(classes, 0.0, "evaluation")


def test_calibration_images_are_drawn_once_each_and_the_same_for_the_same_seed(here, eye):
    source = ImageFiles(str(here / "set"), images=40)
    assert facts_of(source.calibration(eye, 0))["images"] == 40
    every = {sha256_of(image) for image in source.calibration(eye, 0).split(1)}
    assert len(every) == 40, "all that is not held out, none twice"
    few = ImageFiles(str(here / "set"), images=6, seed=3)
    album, chosen = few.album("calibration"), sorted(random.Random(3).sample(range(40), 6))
    (expected,) = batches(album, chosen, eye, 6)
    assert sha256_of(few.calibration(eye, 0)) == sha256_of(expected)
    with pytest.raises(ValueError, match=r"40 images to calibrate on, 41 asked for; lower data.images"):
        ImageFiles(str(here / "set"), images=41).calibration(eye, 0)


def test_classes_are_numbered_as_the_model_has_them_or_refused(eye, caplog):
    assert eye.numbering(["kind3", "kind1"]) == {"kind3": 3, "kind1": 1}
    caplog.set_level(logging.INFO)
    assert eye.numbering("jihgfedcba") == {name: number for number, name in enumerate("abcdefghij")}
    assert "in the order of their names, 0 a to 9 j" in caplog.text
    for names, strange in ((["kind3", "cat"], "1 classes .*cat"), (["cat", "dog"], "2 classes .*cat, dog")):
        with pytest.raises(ValueError, match=f"{strange}.*it has 10"):
            eye.numbering(names)
    with pytest.raises(ValueError, match="1 classes that the model does not have"):
        eye.numbering(["10"], numbered=True)


def test_classes_that_are_numbers_are_the_models_only_if_all_are_there_or_it_is_said(eye):
    """Ten digits are no classes of a model of a thousand, though it has these numbers."""
    assert eye.numbering(map(str, range(10))) == {str(k): k for k in range(10)}
    assert eye.numbering([f"{k:02}" for k in range(10)])["07"] == 7
    assert eye.numbering(["7", "0"], numbered=True) == {"7": 7, "0": 0}
    line = r"classes are numbers \(0, 7\), not all 10 of the model's, .* kind0, .*: name them so, .* data.numbered=true"
    with pytest.raises(ValueError, match=line):
        eye.numbering(["7", "0"])


def test_a_sample_of_numbered_classes_is_read_where_that_is_said(tmp_path, eye):
    top = folder(tmp_path / "set", classes=("3", "8"))
    assert everything(ImageFiles(str(top), numbered=True), eye).labels.tolist() == [3, 8]
    with pytest.raises(ValueError, match=r"data.numbered=true"):
        everything(ImageFiles(str(top)), eye)


def test_a_part_that_lacks_a_class_is_numbered_as_the_whole(tmp_path, eye):
    """Of a class with two images none is held out, and nine classes of ten would be no order."""
    top = folder(tmp_path / "set", classes=tuple("abcdefghij"))
    for k in (2, 3, 4):
        (top / "a" / f"{k}.png").unlink()
    assert everything(ImageFiles(str(top)), eye).labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def content(image: Image.Image, kind: str, **options) -> bytes:
    """An image as a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


ODD = {
    "CMYK made RGB": content(picture(1).convert("CMYK"), "JPEG"),
    "L made RGB": content(picture(2).convert("L"), "PNG"),
    "P made RGB": content(picture(3).convert("P"), "PNG"),
    "RGBA made RGB": content(picture(4).convert("RGBA"), "PNG"),
    "of one pixel in height or width": content(picture(5, 1), "PNG"),
    "animated, of which the first frame": content(
        picture(6), "WEBP", lossless=True, save_all=True, append_images=[picture(7)]
    ),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_image_is_read_and_told(kind):
    image, kinds = decode("x.png", ODD[kind])
    assert image.mode == "RGB" and kind in kinds
    if kind.startswith("animated"):
        assert numpy.array_equal(numpy.asarray(image), numpy.asarray(picture(6)))


def test_odd_images_are_counted_in_one_line(tmp_path, eye, caplog):
    caplog.set_level(logging.INFO)
    top = folder(tmp_path / "set")
    (top / "kind0" / "0.png").write_bytes(ODD["L made RGB"])
    (top / "kind1" / "1.png").write_bytes(ODD["L made RGB"])
    (top / "kind2" / "1.png").write_bytes(ODD["of one pixel in height or width"])
    ImageFiles(str(top), images=40).calibration(eye, 0)
    assert "of 40 images: 2 L made RGB, 1 of one pixel in height or width" in caplog.text


def test_an_image_that_cannot_be_read_is_named(tmp_path, eye):
    top = folder(tmp_path / "set")
    whole = (top / "kind4" / "2.png").read_bytes()
    for bad in (whole[: len(whole) // 2], b"no image", b""):
        (top / "kind4" / "2.png").write_bytes(bad)
        with pytest.raises(ValueError, match=r"set/kind4/2.png: not an image that can be read .*; remove it"):
            ImageFiles(str(top), images=40).calibration(eye, 0)


def test_what_holds_no_images_is_refused_in_one_line(tmp_path, eye):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: no images in folders named by their class; expected a folder"):
        Files(str(tmp_path / "empty"))
    (tmp_path / "a.tar").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"a.tar: not an archive that can be read"):
        Files(str(tmp_path / "a.tar"))
    with pytest.raises(FileNotFoundError, match="nowhere: no such file; expected a folder"):
        ImageFiles(str(tmp_path / "nowhere")).check()
    (tmp_path / "a.zip").touch()
    with pytest.raises(ValueError, match=r"a.zip: expected a folder, .tar or .tar.gz"):
        ImageFiles(str(tmp_path / "a.zip")).check()
    pyarrow.parquet.write_table(pyarrow.table({"pixels": [1]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"no column image, label, found pixels; set data.image"):
        ImageFiles(str(tmp_path / "a.parquet"), images=1).calibration(eye, 0)
    with pytest.raises(ValueError, match=r"no preprocessor_config.json"):
        ImageFiles(str(folder(tmp_path / "set")), images=1).calibration(None, 0)


def test_every_fifth_digit_is_held_out():
    rest, out = (Digits().album(part) for part in ("calibration", "evaluation"))
    assert (len(rest), len(out)) == (1438, 359)
    where, image = out[0]
    assert (where, image.size, image.mode) == ("digit 4", (8, 8), "RGB")
    assert out.classes[:3] == ["4", "9", "4"] and set(rest.classes) == set("0123456789")


def test_a_data_set_of_the_hub_is_the_same_images_as_their_folder(here, eye, monkeypatch):
    """`datasets` reads a local folder as it reads the hub: only where the rows come from is another."""
    rows = load_dataset("imagefolder", data_dir=str(here / "set"), split="train", cache_dir=str(here / "cache"))
    monkeypatch.setattr(hub_images, "load_dataset", lambda *_, **__: rows)
    source = HubImages("owner/set", images=50)
    assert source.name == "set" and rows.features["label"].names == CLASSES
    assert sha256_of(source.calibration(eye, 0)) == sha256_of(everything(ImageFiles("", str(here / "set")), eye))
    with pytest.raises(ValueError, match=r"owner/set train: no column label, found image; set data.image"):
        Rows(rows.remove_columns("label"), "owner/set train", "image", "label")


def test_a_data_set_that_is_not_there_is_one_line(eye):
    with pytest.raises(ValueError, match=r"nobody/nothing: .*; check data.repository, `hf auth login` if gated"):
        HubImages("nobody/nothing").calibration(eye, 0)
