"""Mistakes on the command line: names, options, lists, quotes, sweeps, flags and classes that are not ours to run."""

import pytest

from tests.faults import Fault, cases, check

FAULTS = [
    Fault("a mistyped setting", "sparsty=0.5", "sparsty: no such setting, did you mean sparsity\\?"),
    Fault("a mistyped group", "metrc=wanda", "metrc: no such setting, did you mean metric\\?"),
    Fault("a mistyped option", "experiment=wnda", "experiment=wnda: no such option, did you mean wanda\\?; there are"),
    Fault("a mistyped option in a list", "eval=[audti]", "eval=audti: no such option, did you mean audit\\?"),
    Fault("a mistyped nested setting", "update=sparsegpt update.dampng=1", "did you mean update.damping\\?; --help"),
    Fault("a setting of an option that is not chosen", "eval=[audit] eval.zeroshot.limit=1", "zeroshot is not chosen"),
    Fault("an added setting that nobody reads", "+new.key=1", "new.key: no such setting; --help lists them"),
    Fault("a setting added by force", "++speed=3", "speed: no such setting"),
    Fault(
        "a setting of a data source that is another evaluation's", "eval.perplexity.text.length=5", "no such setting"
    ),
    Fault("a setting of Hydra that does not exist", "hydra.verbos=1", "hydra.verbos'; --help"),
    Fault("a setting of Hydra that the runner sets", "hydra.run.dir=/proc/x", "outputs=FOLDER is where runs go"),
    Fault("a launcher that does not exist", "-m seed=1,2 hydra/launcher=slrm", "hydra/launcher=slrm: no such option"),
    Fault("a group left out", "~metric", "~metric: nothing of a run can be left out; choose another option"),
    Fault("a list of options left out", "~eval", "or none, as eval=\\[\\]"),
    Fault("a setting left out", "~sparsity", "~sparsity: nothing of a run can be left out"),
    Fault("an option at another place", "+metric@second=wanda", "one place, found @second; write metric=OPTION"),
    Fault(
        "a list where one option is chosen", "metric=[wanda]", "expected the name of one option of metric; there are"
    ),
    Fault("a number for an option", "metric=5", "expected the name of one option of metric; there are .*wanda"),
    Fault("null for an option", "allocator=null", "expected the name of one option of allocator; there are .*uniform"),
    Fault("a dictionary for an option", "metric={a:1}", "expected the name of one option of metric"),
    Fault("nothing for an option", "experiment=", "experiment=: no such option; there are admm,"),
    Fault("a list inside a list", "eval=[[audit]]", "expected the name of one option of eval, or several as \\[a,b\\]"),
    Fault("a list in quotes", "\"eval='[audit]'\"", "eval=\\[audit\\]: no such option, did you mean audit\\?"),
    Fault("a list that is not closed", "eval=[audit", "cannot read the command line: .*; write name=value, a list as"),
    Fault("an open quote", '"sweep=\'x"', "cannot read the command line: .*write name=value"),
    Fault("a word without =", "sparsity", "cannot read the command line: .*'sparsity'; write name=value"),
    Fault("a value without a name", "=3", "expected the name of a setting in front of the ="),
    Fault("several values without -m", "experiment=wanda,ria", "asks for several runs; add -m"),
    Fault(
        "one of several values that does not exist", "-m experiment=wanda,rai", "experiment=rai: no such option, did"
    ),
    Fault("a range without a value", "-m sparsity=range(1,0,0.1)", "expected at least one value"),
    Fault("a range that stands still", "-m sparsity=range(0,1,0)", "expected at least one value"),
    Fault("a range that is far too long", "-m seed=range(0,1000000000)", "expected at most 10000 runs"),
    Fault("ranges that multiply", "-m seed=range(0,200) batch=range(1,200)", "expected at most 10000 runs"),
    Fault("an interval, which has no values", "-m sparsity=interval(0,1)", "write them with commas, as a,b,c"),
    Fault("a wildcard", "-m metric=glob(w*)", "write them with commas, as a,b,c"),
    Fault("a reference to nothing", "sparsity=${nope}", "Interpolation key 'nope' not found; --help"),
    Fault("a reference to a word", "sparsity=${oc.env:PATH}", "sparsity: expected a number such as 0.5, found /"),
    Fault("a reference to itself", "sparsity=${sparsity}", "sparsity: Recursive interpolation detected; --help"),
    Fault("another configuration", "--config-name=mine", "--config-name: all settings are those of conf/; change them"),
    Fault("a folder of other configurations", "--config-dir=/nowhere", "plugins: no folder /nowhere"),
    Fault(
        "a flag that does not exist",
        "--sparsity=0.5",
        "--sparsity=0.5: a setting is written without dashes, sparsity=0.5; --help lists flags and settings",
    ),
    Fault("a function from outside as a metric", "metric._target_=os.system", "a class is chosen as an option"),
    Fault(
        "a function of ours as a metric",
        "metric._target_=experiments.run.main",
        "a class is chosen as an option; add a YAML",
    ),
    Fault("a function inside a value", "eval.perplexity.text={_target_:os.system}", "a class is chosen as an option"),
    Fault(
        "a function as a callback of Hydra", "+hydra.callbacks.x._target_=os.system", "a class is chosen as an option"
    ),
    Fault("a launcher from outside", "-m seed=1,2 hydra.launcher._target_=os.system", "a class is chosen as an option"),
]


@pytest.mark.parametrize("fault", cases(FAULTS))
def test_it_gets_one_line_and_nothing_is_lost(fault, tmp_path):
    check(fault, tmp_path)
