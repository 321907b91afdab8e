"""``import seedtf`` imports neither TensorFlow nor a submodule, and offers every public name."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import seedtf

# the names that are imported when they are first used
LAZY = sorted(set(seedtf.__all__) - {"__version__"})


@pytest.mark.parametrize("name", LAZY)
def test_a_public_name_is_the_object_of_its_module(name: str) -> None:
    module, attribute = seedtf._PUBLIC[name]
    public = getattr(seedtf, name)
    assert public is (getattr(sys.modules[module], attribute) if attribute else sys.modules[module])
    assert callable(public) or not attribute
    assert public.__doc__


def test_dir_and_type_checkers_see_the_same_public_names() -> None:
    assert set(LAZY) == set(seedtf._PUBLIC)
    assert set(LAZY) <= set(dir(seedtf))
    tree = ast.parse(Path(seedtf.__file__).read_text(encoding="utf-8"))
    # The imports for type checkers are in the only ``if`` block of the module.
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    modules = {
        name: (f"seedtf.{name}", "") for module, name in imported.values() if module == "seedtf"
    }
    assert imported | modules == seedtf._PUBLIC


def test_an_unknown_name_is_an_attribute_error_with_a_suggestion() -> None:
    expected = "module 'seedtf' has no attribute 'TrainConfg'; did you mean 'TrainConfig'?"
    with pytest.raises(AttributeError) as error:
        _ = seedtf.TrainConfg
    assert str(error.value) == expected
    with pytest.raises(AttributeError, match=r"has no attribute 'zebra'$"):
        _ = seedtf.zebra
    assert not hasattr(seedtf, "__wrapped__")


def test_import_and_configuration_need_no_tensorflow() -> None:
    script = (
        "import sys, seedtf\n"
        "assert 'TrainConfig' in dir(seedtf)\n"
        "before = {name for name in sys.modules if name.startswith('seedtf.')}\n"
        "assert before == set(), before\n"
        "seedtf.TrainConfig(data_dir='sample')\n"
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
