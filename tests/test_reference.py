"""conf/README.md says of every option and setting what it is, as conf/ has it."""

import pytest

from experiments import reference
from experiments.options import CONF

GROUPS = {folder.relative_to(CONF).as_posix() for folder in CONF.rglob("*") if any(folder.glob("*.yaml"))}


def test_the_page_is_as_conf_has_it():
    assert (CONF / "README.md").read_text(encoding="utf-8") == reference.render(), "run python -m experiments.reference"


def test_every_group_is_on_the_page():
    assert set(reference.ABOUT) == GROUPS


@pytest.mark.parametrize("group", sorted(GROUPS))
def test_every_option_and_setting_says_what_it_is(group):
    for option in reference.options(group):
        assert option.about, option.name
        assert group in reference.PRESETS or all(setting.meaning for setting in option.settings), option


def test_a_nested_setting_has_its_full_name_and_its_default(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("# What x is.\nx:\n  _target_: experiments.x.X\n  a: 0.5 # how much\n  b: [1, 2] # which: any\n")
    option = reference.Option.read(file)
    assert option.about == "What x is."
    assert option.settings == (
        reference.Setting("x.a", "0.5", "how much"),
        reference.Setting("x.b", "[1, 2]", "which: any"),
    )
