"""The tables of published numbers hold what ../shared/papers holds, with the same digits, and nothing else."""

from collections import Counter
from decimal import Decimal

import pytest
import yaml

from tests.published import NAMES, numbers, table

TEXTS = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # every scalar as it is written: 4.10 stays 4.10
TRUST = ["quoted", "readme", "paper"]  # weakest first
PLACES = {  # (file, its table) -> ours; a column too where the metric does not tell it
    ("admm", "MaskLLM table 13"): "maskllm_table13",
    ("baselines", "LLaMA-3, RIA repository"): "ria_llama3",
    ("baselines", "issue threads"): "issue_threads",
    ("baselines", "wikitext2 70%"): "owl_70",
    ("baselines", "wikitext2, 4096 windows"): "wanda_wikitext2",
    ("baselines", "zero-shot, Wanda paper as quoted"): "wanda_zeroshot",
    ("baselines", "zero-shot, rerun by llm-pruning-collection"): "wanda_zeroshot_rerun",
    ("baselines_thirdparty", "ALPS tables 11-14, 16, 17"): "alps_perplexity",
    ("baselines_thirdparty", "D2Prune perplexity"): "d2prune_perplexity",
    ("baselines_thirdparty", "D2Prune zero-shot mean of 7 tasks"): "d2prune_zeroshot",
    ("baselines_thirdparty", "MaskLLM table 11, C4 calibration data"): "maskllm_table11_c4",
    ("baselines_thirdparty", "MaskLLM table 11, blended calibration data"): "maskllm_table11_blended",
    ("baselines_thirdparty", "MaskLLM table 12"): "maskllm_table12",
    ("baselines_thirdparty", "MaskLLM table 13"): "maskllm_table13",
    ("besa", "paper table 1 (fragment)"): "besa_table1",
    ("besa", "paper table 2, mean of 6 tasks"): "besa_zeroshot",
    ("besa", "paper table 3, 50% + 4-bit"): "besa_joint",
    ("besa", "wikitext2 50%"): "besa_wikitext2",
    ("gblm", "70% table"): "gblm_70",
    ("gblm", "MODEL_ZOO"): "gblm_zoo",
    ("gblm", "MaskLLM table 13"): "maskllm_table13",
    ("gblm", "Wanda++ table 1"): "gblm_wandapp",
    ("gblm", "ablation, alpha=100"): "gblm_ablation/WikiText2, alpha 100",
    ("gblm", "ablation, score"): "gblm_ablation/WikiText2",
    ("gblm", "paper table 2"): "gblm_table2",
    ("gblm", "zero-shot mean of 6 tasks"): "gblm_zeroshot",
    ("mixed", "Table 1"): "mixed_table1",
    ("mixed", "Table 2"): "mixed_table2",
    ("mixed", "Table 3"): "mixed_table3",
    ("mixed", "Table 4"): "mixed_table4",
    ("quantisation", "GPTQ README, LLaMA"): "gptq_readme",
    ("quantisation", "GPTQ README, act-order"): "gptq_readme",
    ("quantisation", "OmniQuant table 1"): "omniquant_table1",
    ("quantisation", "SLiM table 13"): "slim_table13",
    ("quantisation", "SparseGPT text, OPT-175B joint"): "sparsegpt_joint",
    ("vision", "MaskLLM-4V, augreg_in1k"): "maskllm4v",
    ("vision", "MaskLLM-4V, augreg2_in21k_ft_in1k"): "maskllm4v",
    ("vision", "MaskLLM-4V, augreg_in21k_ft_in1k"): "maskllm4v",
    ("unknowns", "ADMM main table, quoted"): "admm_wikitext2",
    ("unknowns", "ADMM table 2 at 60%, quoted"): "admm_wikitext2",
    ("unknowns", "SparseGPT paper, BLOOM"): "sparsegpt_opt",
    ("unknowns", "SparseGPT paper, OPT"): "sparsegpt_opt",
    ("unknowns", "Wanda table 2, mean of 7 tasks, quoted"): "wanda_table2",
    ("unknowns", "Wanda table 3, quoted"): "wanda_table3",
    ("unknowns", "Wanda, comparison group, quoted"): "wanda_table3",
}
SECONDS = "run time on other hardware, with other work counted: never comparable; named in the notes"
ACTIVATIONS = "activations and the cache of keys and values have 4 bits too, behind rotations"
ADAPTERS = "the table of a method with low-rank adapters; its window, calibration and grids are not stated"
ONE_USER = "runs of one user with kernels for 16:32, in act-order or staged; window and calibration are not stated"
LAYER = "error of one layer, a range, a memory or a speed: no metric of a run"
OMITTED = {  # what has no place in a table, and why
    ("admm", "LSA table 11"): "allocated by LSA, which this project does not have; named in maskllm_table13's notes",
    ("barber", "abstract, 7B-13B models, one A100"): SECONDS,
    ("baselines_thirdparty", "ALPS table 6"): SECONDS,
    ("besa", "run time, one A100-80GB"): SECONDS,
    ("gblm", "Wanda++ cost, H100"): SECONDS,
    **{
        ("quantisation", one): ACTIVATIONS
        for one in (
            "OBR table 1, QuaRot",
            "OBR table 10, FlatQuant",
            "OBR, mask",
            "OBR, share of retained columns treated first",
            "OBR, the same calibrated on C4",
        )
    },
    **{
        ("quantisation", one): ADAPTERS
        for one in ("SLiM table 10", "SLiM table 11", "SLiM table 14", "SLiM, mean of 6 tasks at similar size")
    },
    ("quantisation", "mstnegate README, first version"): ONE_USER,
    ("quantisation", "mstnegate README, joint GPTQ + SparseGPT"): ONE_USER,
    ("unknowns", "ADMM run time, 2 x Quadro RTX 5000, quoted"): SECONDS,
    ("unknowns", "SparseGPT paper, zero-shot mean"): "OPT-175B on tasks that our copy does not name",
    ("unknowns", "Wanda, one calibration sample, quoted"): "one number; named in wanda_table3's notes",
    ("unknowns", "Wanda, time of the metric alone, quoted"): SECONDS,
    # below: other_numbers
    ("admm", "ALPS table 7"): LAYER,
    ("admm", "ALPS table 8, ALPS support"): LAYER,
    ("admm", "re-selection, 99%"): LAYER,
    ("admm", "re-selection, 99%, SparseGPT-type mask"): LAYER,
    ("admm", "re-selection, 99%, percdamp 1e-3"): LAYER,
    ("baselines", "abstract"): LAYER,
    ("baselines", "issue threads, off"): "failed reproductions, an outlier and calibration on another text",
    ("baselines_thirdparty", "D2Prune perplexity"): "3:4, kept or removed is not stated",
    ("besa", "ViTCoD simulator"): LAYER,
    ("besa", "paper table 2"): LAYER,
    ("besa", "run time"): SECONDS,
    ("besa", "sec. 3.2"): LAYER,
    ("gblm", "ablation, 5 calibration draws"): "the spread beside gblm_ablation's numbers",
    ("quantisation", "OBR, minutes on one A100"): SECONDS,
    ("unknowns", "SparseGPT paper, five calibration draws"): "a mean and a deviation; named in sparsegpt_opt's notes",
    ("vision", "CIFAR-10, small ViTs"): "dense models alone, on images that this project has re-encoded",
    ("vision", "RobOP-CAP re-implementation"): "a third party's notes: a dense model, and a sparsity that was missed",
}


@pytest.fixture(scope="module")
def papers(shared):
    """(file, row, whether it is among `numbers`) of every published number, as text."""
    rows = []
    for path in sorted((shared / "papers").glob("*.yaml")):
        document = yaml.load(path.read_text(), TEXTS)
        for section in ("numbers", "other_numbers"):
            rows += [(path.stem, row, section == "numbers") for row in document.get(section, [])]
    return rows


def budget(row):
    if row["method"] == "dense":
        return "dense"
    if Decimal(row["sparsity"]) == 0:
        return "unpruned"  # and quantised
    return row["sparsity"] if row["pattern"] == "unstructured" else row["pattern"]


OURS = {"acc/top1": "acc/imagenet-1k"}  # what the papers call a metric of ours


def columns(name, row):
    """The columns of the table whose metric and window are the row's."""
    found, called = [], OURS.get(row["metric"], row["metric"])
    for label, value in table(name)["values"].items():
        metric, _, window = value["key"].partition("@")
        said = table(name)["unstated"] or value.get("reason")  # without a window of its own a perplexity needs a reason
        if metric == called and (row["seqlen"] == window or (row["seqlen"] == "null" and (said or not window))):
            found.append(label)
    return found


@pytest.fixture(scope="module")
def placed(papers):
    """Cell of ours -> the rows that it holds; every row has a place, or is omitted for a reason."""
    found, omitted = {}, Counter()
    for file, row, main in papers:
        at = (file, row["table"])
        if at in PLACES and (main or at not in OMITTED):
            name, _, label = PLACES[at].partition("/")
            there = [one for one in columns(name, row) if one == (label or one)]
            assert len(there) == 1, f"{row}: columns {there}"
            found.setdefault((name, there[0], budget(row), row["method"], row["model"]), []).append(row)
        else:
            assert at in OMITTED, f"{at} is in no table of ours and not omitted either"
            omitted[at] += 1
    assert set(omitted) == set(OMITTED), "an omission that does not exist"
    assert {PLACES[at] for at in PLACES if at not in {(f, r["table"]) for f, r, _ in papers}} == set()
    assert sum(map(len, found.values())) + omitted.total() == len(papers)
    return found


def test_every_published_number_is_in_exactly_one_table_with_its_digits(placed):
    for (name, *cell), rows in placed.items():
        printed, _ = numbers(name).get(tuple(cell), ("absent", None))
        for row in rows:
            assert Decimal(printed) == Decimal(row["value"]), f"{name} {cell}: {printed}, the paper has {row['value']}"
            digits = {Decimal(printed).as_tuple().exponent, Decimal(row["value"]).as_tuple().exponent}
            assert len(digits) == 1 or printed == "2.61E+03", f"{name} {cell}: {printed} for {row['value']}"


def test_no_number_is_invented(placed):
    for name in NAMES:
        invented = {(name, *cell) for cell in numbers(name)} - placed.keys()
        assert not invented, invented


def test_a_table_is_trusted_as_its_weakest_row(placed):
    for name in {cell[0] for cell in placed}:
        marks = {row["trust"] for cell, rows in placed.items() for row in rows if cell[0] == name}
        assert table(name)["trust"] == min(marks, key=TRUST.index), name


def test_a_spread_is_that_of_the_papers_own_draws(papers):
    drawn = {row["metric"]: Decimal(row["value"]) for _, row, _ in papers if "5 calibration draws" in row["table"]}
    width = drawn["ppl_max/wikitext2"] - drawn["ppl_min/wikitext2"]
    spreads = {(name, *cell): s for name in NAMES for cell, (_, s) in numbers(name).items() if s is not None}
    assert {cell[0] for cell in spreads} == {"gblm_ablation"}
    assert all(cell[3] == "gblm-l1" and Decimal(str(spread)) == width for cell, spread in spreads.items())
