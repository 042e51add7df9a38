"""What the figures of a report choose alike: the metric, the look of a method, what has room."""

from experiments.figures import canvas, curves, depth, histograms, pareto, seeds, stages
from experiments.reporting import details
from experiments.summary.shared import main_metrics
from tests.figures import PPL, groups, record, with_histograms


def other_metric(key="ppl/a@128", **changed):
    """A run that measured something else, first in the alphabet."""
    return record(metrics={key: 7.0}, dense={key: 5.0}, difference_stderr={}, step={key: "perplexity-1"}, **changed)


def test_one_run_with_another_metric_takes_no_figure_from_the_others():
    runs = [record(method, 20.0 + k + seed / 8, seed) for k, method in enumerate(("wanda", "ria")) for seed in (0, 1)]
    every = groups([*runs, other_metric(seed=2), other_metric(model="other")])
    assert main_metrics(every) == {"demo": PPL, "other": "ppl/a@128"}
    (panel,) = pareto.panels(every).values()
    assert (panel.metric, {point.method for point in panel.points}) == (PPL, {"wanda", "ria"})
    assert list(seeds.panels(every)) == [f"demo, unstructured 0.5, {PPL}"]
    assert next(iter(curves.panels(every))) == f"demo, {PPL}"


def test_metrics_that_as_many_runs_have_are_chosen_by_the_other_models_then_in_reading_order():
    both = {"acc/mean": 0.5, "ppl/b@1": 8.0, "ppl/a@1": 9.0}
    tied = record(metrics=both, step=dict.fromkeys(both, "perplexity-1"))
    assert main_metrics(groups([tied])) == {"demo": "ppl/a@1"}
    elsewhere = record(metrics={"acc/mean": 0.5}, step={"acc/mean": "perplexity-1"}, dense={}, model="other")
    assert main_metrics(groups([tied, elsewhere])) == {"demo": "acc/mean", "other": "acc/mean"}
    assert main_metrics(groups([record(metrics={}, dense={})])) == {}


def legend(figure):
    """Name -> colour and marker."""
    (entries,) = figure.legends
    return {line.get_label(): (line.get_color(), line.get_marker()) for line in entries.legend_handles}


def test_a_method_has_one_colour_and_marker_in_all_pictures_whichever_methods_each_shows():
    runs = [record(method, 20 + s, sparsity=s) for s in (0.3, 0.5, 0.7) for method in ("wanda", "ria")]
    runs += [record("admm", pattern="2of4", seconds={}), record("besa", pattern="2of4", blocks=0)]
    drawn = [legend(module.draw(groups(runs))) for module in (curves, pareto, depth)]
    assert [sorted(names.keys() - {"2of4 0.5"}) for names in drawn] == [
        ["ria", "wanda"],
        ["ria", "wanda"],
        ["admm", "ria", "wanda"],
    ]
    for method in ("wanda", "ria"):
        assert len({names[method] for names in drawn}) == 1
    colours = {colour for names in drawn for colour, _ in (names[m] for m in ("wanda", "ria"))}
    assert not colours & {"black", *canvas.shades(["2of4 0.5", "prune"]).values()}, "other things have other colours"


def test_patterns_that_were_not_swept_have_lines_of_their_own_the_best_method_at_the_shared_budget_first():
    runs = [record(method, 20 + 10 * s, sparsity=s) for s in (0.3, 0.5, 0.7) for method in ("wanda", "ria")]
    runs += [record("wanda", 30.0, pattern="2of4"), record("ria", 29.0, pattern="2of4")]
    runs += [record("wanda", 25.0, pattern="4of8"), record("admm", 24.0, pattern="4of8", sparsity=0.25)]
    first, second = curves.panels(groups(runs)).items()
    assert (first[0], first[1].swept) == (f"demo, {PPL}, unstructured", True)
    assert (second[0], second[1].swept) == (f"demo, {PPL}, 2of4, 4of8", False)
    assert second[1].methods == ["ria", "wanda", "admm"]


def test_of_many_histograms_those_of_the_shared_budget_are_shown_the_best_first_and_the_rule_is_told(tmp_path):
    told = lambda *names, **settings: with_histograms(record(*names, **settings), tmp_path)
    runs = [told(f"m{k}", 30.0 - k) for k in range(5)] + [told("a", pattern="2of4")]
    shown, notes = histograms.chosen(groups([*runs, record("untold")]))
    assert ([group.method for group in shown], notes) == (["a", "m0", "m1", "m2", "m3", "m4"], [])
    runs += [told(f"m{k}", 30.0 - k) for k in range(5, 9)]
    shown, (note,) = histograms.chosen(groups(runs))
    assert [group.method for group in shown] == [f"m{k}" for k in range(8, 0, -1)]
    assert note.startswith("8 of 10 settings") and "unstructured 0.5 of demo" in note and PPL in note


def test_memory_is_what_the_run_added_where_all_runs_know_it_else_that_of_the_process():
    peaks = lambda **added: {"prune": {"host_peak": 900, "device_peak": None} | added}
    new = record("wanda", stage_memory=peaks(host_added=100))
    axes = lambda *runs: {axes.get_xlabel() for axes in stages.draw(groups(runs)).axes} - {"seconds"}
    assert axes(new) == {stages.PEAKS["host_added"]}
    assert axes(new, record("ria", stage_memory=peaks())) == {stages.PEAKS["host_peak"]}


def test_what_lies_beyond_the_axis_of_times_has_its_value_beside_it():
    runs = [record(f"m{k}", 20.0 + k, seconds={"prune": 1.0 + k}) for k in range(4)]
    figure = pareto.draw(groups([*runs, record("random", 900.0, seconds={"prune": 0.1})]))
    assert "random 900 ↑" in [text.get_text() for text in figure.axes[0].texts]


def test_numbers_of_a_heat_map_are_written_where_each_has_room_in_its_cell():
    def written(blocks):
        figure = canvas.figure(300)
        names = [str(k) for k in range(blocks)]
        canvas.heat(figure.add_subplot(1, 2, 1), {"row": dict.fromkeys(names, 0.5)}, names, "{:.5f}".format)
        canvas.settle(figure)
        return [text.get_text() for text in figure.axes[0].texts]

    assert written(6) == ["0.50000"] * 6 and written(13) == []


def test_the_page_tells_what_of_a_stage_s_peak_the_run_added_where_it_is_known():
    peaks = {"host_peak": 3 * 2**30, "host_added": 2**30, "device_peak": None}
    run = record(
        seconds={"load": 1.0, "prune": 2.0}, stage_memory={"load": peaks | {"host_added": None}, "prune": peaks}
    )
    assert [cells[2] for cells in details.stages(run)[:2]] == ["3 GiB", "3 GiB, 1 GiB of it by the run"]
