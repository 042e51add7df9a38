"""A report goes to W&B as one run with all its files, read back by wandb's own reader; a failure is one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from experiments.trackers.upload import upload
from experiments.trackers.wandb import Wandb
from tests.offline import of, recorded, rows_of

ROOT = Path(__file__).parents[1]
TABLE = """model,method,sparsity,identity,ppl/text@128
demo,dense,,,17.5
demo,wanda,0.5,123e456789,inf
demo,"a,b",0.7,0000000000,
"""
PAGE = "<!doctype html><html><head><title>r</title></head><body>page</body></html>"
FILES = ("report.html", "report.csv", "report.tex", "figures/pareto.png", "figures/pareto.svg")


def written(top: Path) -> list[Path]:
    """A report's files as the command writes them."""
    (top / "figures").mkdir(parents=True)
    Figure(figsize=(1, 1)).savefig(top / "figures" / "pareto.png")
    texts = {"report.html": PAGE, "report.csv": TABLE, "report.tex": "% tex", "figures/pareto.svg": "<svg/>"}
    for name, text in texts.items():
        (top / name).write_text(text)
    return [top / name for name in FILES]


@pytest.fixture(scope="module")
def uploaded(tmp_path_factory):
    """The report's folder, what `upload` said of it twice, what wandb's reader finds, and its empty home."""
    top = tmp_path_factory.mktemp("upload")
    files = [str(file) for file in written(top / "report")]
    home = top / "home"
    (home / "work").mkdir(parents=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    place = {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "NETRC": str(home / "none")}
    code = "import sys; from pathlib import Path; from experiments.trackers.upload import upload; "
    code += "print(upload([Path(name) for name in sys.argv[1:]], 'my runs'))"
    done = subprocess.run(
        [sys.executable, "-c", code, *files],
        env=kept | place | {"PYTHONPATH": str(ROOT)},
        cwd=home / "work",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    (top / "reader").mkdir()
    return top / "report", done.stdout, recorded(top / "report", top / "reader"), home


def test_without_a_key_it_is_recorded_beside_the_report_and_says_how_to_upload_it(uploaded):
    folder, said, _, home = uploaded
    (line,) = said.splitlines()
    (run,) = (folder / "wandb").glob("offline-run-*")
    assert line == f"W&B: report recorded offline; to upload: wandb sync --yes {run}"
    assert [str(path) for path in home.rglob("*")] == [str(home / "work")], "nothing is left outside"


def test_the_run_is_a_report_and_its_artifact_has_every_file(uploaded):
    folder, _, records, _ = uploaded
    (run,) = of(records, "run")
    assert (run["project"], run["job_type"], run["display_name"]) == ("pruning", "report", "my runs")
    assert run["run_id"].startswith("report-")
    (artifact,) = [found for found in of(records, "artifact") if found["type"] == "report"]
    contents = {entry["path"]: Path(entry["local_path"]) for entry in artifact["manifest"]["contents"]}
    assert sorted(contents) == sorted(FILES)
    for name, copy in contents.items():
        assert copy.read_bytes() == (folder / name).read_bytes()
        assert folder in copy.parents, "an upload later needs the bytes that were there"
    assert [record.get("exit_code", 0) for record in of(records, "exit")] == [0]


def test_the_page_the_table_and_the_figures_can_be_looked_at(uploaded):
    folder, _, _, _ = uploaded
    media = next((folder / "wandb").glob("offline-run-*/files/media"))
    assert [file.read_text() for file in media.glob("html/report/page_*.html")] == [PAGE], "no link out is put in"
    assert [p.read_bytes() for p in media.glob("images/figures/*.png")] == [
        (folder / "figures/pareto.png").read_bytes()
    ]
    dense, wanda, other = rows_of(folder, "report/table")
    assert dense == {"model": "demo", "method": "dense", "sparsity": None, "identity": "", "ppl/text@128": 17.5}
    assert (wanda["sparsity"], wanda["identity"]) == (0.5, "123e456789"), "an identity is no number"
    assert (other["method"], other["sparsity"], other["ppl/text@128"]) == ("a,b", 0.7, None)
    assert json.dumps(wanda["ppl/text@128"]) in ("Infinity", '"Infinity"')


def test_a_wandb_that_fails_is_one_line_and_the_files_stay(tmp_path, monkeypatch):
    files = written(tmp_path / "report")
    before = [file.read_bytes() for file in files]

    def refused(*_):
        raise RuntimeError("no such\nentity")

    monkeypatch.setattr(Wandb, "open", refused)
    with pytest.raises(
        OSError, match=r"^W&B: the report was not uploaded \(RuntimeError: no such entity\); its files are in .*report$"
    ):
        upload(files, "r")
    assert [file.read_bytes() for file in files] == before


def test_a_wandb_that_is_disabled_uploads_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(Wandb, "open", lambda *_: None)
    assert upload(written(tmp_path / "report"), "r") == "W&B is disabled (WANDB_MODE): nothing was uploaded"
