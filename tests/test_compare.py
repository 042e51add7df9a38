"""Two runs side by side: what differs is told, what is the same is not, and nothing is compared that cannot be."""

import csv
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from experiments.compare import find, main
from experiments.comparing.comparison import compare, render
from experiments.comparing.layers import layers
from experiments.runs.record import load
from tests.pairs import BOOLQ, KEY, SHAPES, edit, put

MEGA = 2**20


@pytest.fixture
def pair(tmp_path):
    """Two runs of one model that differ in the seed and so in their masks."""
    return put(tmp_path, "wanda", 0), put(tmp_path, "wanda", 1)


def between(*folders: Path) -> str:
    """The comparison as the terminal shows it."""
    return render(compare(*map(load, folders)))


def row(text: str, *words: str) -> list[str]:
    """The cells of the first line that begins so."""
    return next(line.split() for line in text.splitlines() if line.split()[: len(words)] == list(words))


def test_the_interval_shown_is_that_of_the_pairs_of_losses(pair):
    sides = [json.loads((run / "steps" / "perplexity-1.json").read_text())["details"]["losses"] for run in pair]
    first, second = (torch.tensor(side, dtype=torch.float64) for side in sides)
    gap = second.mean().exp() - first.mean().exp()
    half = 1.96 * (second.mean().exp() * second - first.mean().exp() * first).std() / 8**0.5
    text = between(*pair)
    cells = row(text, KEY)
    assert cells[3] == f"{gap:+.3f}" and cells[4:7] == [f"{gap - half:+.3f}", "to", f"{gap + half:+.3f}"]
    assert cells[7:] == [
        "pairs",
        "significant" if abs(gap) > half else "within",
        *["noise"] * bool(abs(gap) <= half),
    ]
    assert row(text, BOOLQ)[2:] == ["60.00", "60.00", "+0.00", "-8.32", "to", "+8.32", "two", "samples", "the", "same"]


def test_a_run_compared_with_itself_has_no_difference(pair):
    text = between(pair[0], pair[0])
    assert text.count("\nnone\n") == 2, "neither settings nor code"
    assert row(text, KEY)[3:] == ["+0.000", "+0.000", "to", "+0.000", "pairs", "the", "same"]
    assert row(text, "all")[3:] == [row(text, "all")[3], "0.0000", "0.0000", "1.0000", row(text, "all")[-1]]
    assert "the masks are the same" in text
    assert "LEAST IN COMMON" not in text


def test_what_was_measured_otherwise_is_not_compared_and_it_is_said_why(tmp_path, pair):
    other = put(tmp_path, "magnitude", 3, sha256="b2")
    edit(other, "results.json", lambda told: told["metrics"].pop(BOOLQ))
    text = between(pair[0], other)
    assert row(text, KEY)[3:] == ["not", "comparable"]
    assert f"{KEY} is not comparable: sha256 a1 in A, b2 in B" in text
    assert row(text, BOOLQ)[2:] == ["60.00", "only", "in", "A"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("shapes", "not the same model: h.0.attn.q is 6 x 7 in A and 7 x 6 in B"),
        ("names", "not the same model: no matrix has the name of one of the other (h.0.other.q)"),
        ("dense", "B removed nothing; masks are not compared"),
        ("no results", "B: no matrices in the results; layers are not compared"),
        ("no masks", "not there, or not as it was written: {other}/masks/h.0.safetensors and 1 more"),
        ("altered", "not there, or not as it was written: {other}/masks/h.1.safetensors"),
        ("other weights", "not the same weights were pruned: masks are compared place by place"),
        ("longer", "3 matrices are in one of the runs only; masks are compared where both have them"),
    ],
)
def test_what_cannot_be_compared_is_told_in_one_line_and_the_rest_is_shown(tmp_path, pair, name, said):
    shapes = {"shapes": {"attn.q": (7, 6)}, "names": {"other.q": (6, 7)}}.get(name, SHAPES)
    share, blocks = 0.0 if name == "dense" else 0.5, 3 if name == "longer" else 2
    content = {"model_content": "e" * 20} if name == "other weights" else {}
    other = put(tmp_path, "other", 5, share, blocks, shapes, **content)
    if name == "no results":
        (other / "results.json").unlink()
        edit(other, "manifest.json", lambda told: told.update(status="failed", error="layer q has NaN weights"))
    if name == "no masks":
        for file in (other / "masks").iterdir():
            file.unlink()
    if name == "altered":
        file = other / "masks" / "h.1.safetensors"
        file.write_bytes(file.read_bytes()[:-1] + b"\x55")
    text = between(pair[0], other)
    assert text.count(said.format(other=other)) == 1
    assert row(text, "h.0")[1] == "0.01" and row(text, "prune")
    assert ("layer q has NaN weights" in text.splitlines()[1]) == (name == "no results")


def test_the_matrix_named_first_has_least_in_common(tmp_path, pair):
    other = put(tmp_path, "other", 5, share=0.7)
    text = between(pair[0], other)
    found, _ = layers(load(pair[0]), load(other))
    least = min(found, key=lambda layer: layer.common)
    assert row(text.partition("LEAST IN COMMON")[2], least.name)[-2] == f"{least.common:.4f}"


def test_time_and_memory_are_told_by_stage_where_runs_tell_them(pair):
    text = between(*pair)
    assert row(text, "prune") == ["prune", "2.00", "3.00", "1.50"]
    assert " ".join(row(text.partition("MEMORY")[2], "all")) == "all 2.00 3.00 1.50 3 GiB 3 GiB"
    for run, peak in zip(pair, (512 * MEGA, 1024 * MEGA), strict=True):
        stages = {"prune": {"host_peak": peak, "device_peak": 2 * peak}}
        edit(run, "results.json", lambda told, stages=stages: told.update(stage_memory=stages))
    text = between(*pair)
    assert " ".join(row(text, "prune")) == "prune 2.00 3.00 1.50 512 MiB 1 GiB 1 GiB 2 GiB"


def test_a_run_is_found_by_its_folder_or_a_part_of_its_name(tmp_path, pair):
    assert find(str(pair[0]), Path("nowhere")) == pair[0]
    assert find("0.5-0000000001", tmp_path) == find("demo/wanda-unstructured-0.5-0000000001", tmp_path) == pair[1]
    for name, said in (
        ("wanda", r"^wanda fits 2 runs in .*: demo/wanda-unstructured-0.5-0000000000, demo/.*-0000000001$"),
        ("wnada-unstructured-0.5-0000000001", "did you mean wanda-unstructured-0.5-0000000001"),
        (str(tmp_path), "expected a folder with a manifest.json, or a part of the name of one of the 2 in"),
    ):
        with pytest.raises(ValueError, match=said):
            find(name, tmp_path)
    with pytest.raises(ValueError, match="or a part of the name of --outputs FOLDER, for there are none in"):
        find("wanda", tmp_path / "empty")


def test_mistakes_get_one_line_and_status_2_and_write_nothing(tmp_path, pair, capsys):
    asked = [*map(str, pair), "--to", str(tmp_path / "to")]
    (tmp_path / "file").write_text("")
    edit(put(tmp_path, "half", 7), "manifest.json", lambda told: told.pop("config"))
    for arguments, said in (
        (["wanda", "wanda", "--outputs", str(tmp_path)], "fits 2 runs"),
        ([*asked[:2], "--csv"], "--csv writes files: give --to FOLDER too"),
        ([asked[0], str(tmp_path / "demo/half-unstructured-0.5-0000000007")], "manifest.json has no config"),
        ([*asked[:3], str(tmp_path / "file" / "to")], "file"),
    ):
        assert main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and said in line
    assert not (tmp_path / "to").exists()


def test_the_command_writes_markdown_pictures_and_every_number(tmp_path, pair, capsys):
    written = []
    for name in ("one", "two"):
        assert main([*map(str, pair), "--to", str(tmp_path / name), "--csv"]) == 0
        last = capsys.readouterr().out.splitlines()[-1]
        written.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert written[0] == written[1], "the same runs, the same bytes"
    pictures = {f"comparison.{ending}" for ending in ("png", "pdf", "svg")}
    assert set(written[0]) == {"comparison.md", "layers.csv", *pictures}
    assert all(str(tmp_path / "two" / name) in last for name in written[0])
    with Image.open(tmp_path / "one" / "comparison.png") as image:
        assert image.size[0] == 1280
    text = written[0]["comparison.md"].decode()
    assert "![Both runs by depth](comparison.png)" in text and "## Every matrix" in text
    found, _ = layers(*map(load, pair))
    told = list(csv.DictReader(written[0]["layers.csv"].decode().splitlines()))
    assert [(line["matrix"], float(line["removed in common"])) for line in told] == [(x.name, x.common) for x in found]


def test_where_nothing_can_be_drawn_an_earlier_picture_goes(tmp_path, pair):
    to = ["--to", str(tmp_path / "to")]
    assert main([*map(str, pair), *to]) == 0
    for run in pair:
        edit(run, "results.json", lambda told: told.update(layers=[], blocks=[]))
    assert main([*map(str, pair), *to]) == 0
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["comparison.md"]
    assert "![" not in (tmp_path / "to" / "comparison.md").read_text()
