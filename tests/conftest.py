"""Shapes are checked in the calls of prune/, no test reaches a hub, and the real models lie beside the repository."""

import gc
import os
import shutil
from contextlib import nullcontext
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "WANDB_MODE": "offline", "WANDB_SILENT": "true"}

import pytest

from tests import shapes

shapes.install()

import torch  # noqa: E402 - after the import hook

from tests import emulated  # noqa: E402

SHARED = Path(__file__).parents[1].parent / "shared"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


def pytest_collection_finish():
    """What was imported stays: no later collection of garbage, one in every run, looks through it again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup():
    """Models that transformers draws are the same whichever tests ran before: it draws from torch's own generator."""
    torch.manual_seed(0)
    shapes.calls.clear()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call():
    """The same for what a test draws itself."""
    torch.manual_seed(0)
    shapes.calls.clear()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models, text and tasks; tests that need it are skipped where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"needs the real models and text in {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def tokenizer(shared):
    """A real one: that of wiki-llama-3m."""
    from transformers import AutoTokenizer  # noqa: PLC0415 - after the import hook

    return AutoTokenizer.from_pretrained(str(shared / "data" / "models" / "wiki-llama-3m"))


@pytest.fixture(scope="module")
def browser():
    """A real one, that shows a page without a window."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install -e .[dev])")
    if CHROMIUM is None:
        pytest.skip("needs a chromium (Debian: apt-get install chromium)")
    with api.sync_playwright() as found:
        opened = found.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield opened
        opened.close()


@pytest.fixture(params=[pytest.param("cuda", marks=pytest.mark.gpu), emulated.NAME])
def far(request):
    """A device that is not the CPU: a GPU where there is one, and the emulated one everywhere."""
    with emulated.device() if request.param == emulated.NAME else nullcontext(torch.device("cuda")) as device:
        yield device


@pytest.fixture(autouse=True)
def needs_gpu(request):
    if request.node.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
