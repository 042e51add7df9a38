"""The study on SmolLM2: which runs it is, and what each measures."""

from experiments import table
from experiments.composing.overrides import name_of
from experiments.reproduction import cells, methods


def study():
    return cells.load(table.file_of("study", table.TABLES), [])


def test_three_seeds_at_half_the_weights_of_which_the_first_alone_answers_tasks():
    every = methods.cells(study())
    assert len(every) == len(set(every)) == 28
    later = [cell for cell in every if cell.seed > 0]
    assert {cell.method for cell in later} == {"wanda", "sparsegpt", "admm"}
    assert {cell.budget for cell in later} == {"0.5"}
    for cell in every:
        asked = [line for line in cell.overrides if name_of(line) == "eval"][-1]  # the last one counts
        settings = [line for line in cell.overrides if name_of(line).startswith("eval.zeroshot")]
        tasks = cell.seed == 0 and cell.budget in ("0.5", "2:4")
        assert ("zeroshot" in asked) == bool(settings) == tasks
        assert "kl_wikitext2" in asked


def test_it_tells_no_seconds_of_runs_that_shared_a_machine():
    files = methods.files(study(), {})
    assert "## smollm2, cost" not in files[".md"]
    assert "seconds" not in files[".csv"]
