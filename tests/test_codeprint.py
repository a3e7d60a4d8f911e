"""The hash of a step's code: what changes it and what does not."""

import ast
import shutil

import pytest

from icis import codeprint, layout
from icis.codeprint import NEUTRAL, PACKAGE, closure, code_hash

MODULES = sorted(
    ".".join(["icis", *path.relative_to(PACKAGE).with_suffix("").parts])
    for path in PACKAGE.rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
)
STAGES = [name for name in MODULES if name.startswith("icis.stages.")]
METHODS = [name for name in MODULES if name.startswith("icis.methods.")]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return a copy of the package that hashes are taken of."""
    copy = tmp_path / "icis"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(codeprint, "PACKAGE", copy)
    forget()
    yield copy
    forget()


def forget():
    for each in (codeprint._facts, codeprint._kept, code_hash):
        each.cache_clear()


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    forget()


PROBE = '''"""What the module does."""

import math

LIMIT = 3
"""What the limit is."""


class Circle:
    """A circle."""

    radius: float = 1.0
    """In metres."""

    def area(self, times: int = 1) -> float:
        """Return the area."""
        # pi times the square
        return times * math.pi * self.radius**2
'''


def probe(package, old="", new=""):
    """Return the hash of the probe with something in it replaced."""
    assert old in PROBE
    (package / "probe.py").write_text(PROBE.replace(old, new, 1) if old else PROBE)
    forget()
    return code_hash("icis.probe")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# pi times the square", "# another comment"),
        ("        # pi times the square\n", ""),
        ("What the module does.", "Something else."),
        ('"""What the module does."""\n', ""),
        ("What the limit is.", "How far to go."),
        ("A circle.", "A disc.\n\n    With more lines."),
        ('    """A circle."""\n\n', ""),
        ("In metres.", "In feet."),
        ('        """Return the area."""\n', ""),
        ("LIMIT = 3", "LIMIT   =   3"),
        ("times * math.pi", "times * \\\n            math.pi"),
        ("\n\n\nclass", "\nclass"),
    ],
)
def test_comments_docstrings_and_formatting_do_not_count(package, old, new):
    assert probe(package, old, new) == probe(package)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ("LIMIT = 3", "LIMIT = '3'"),
        ("times * math.pi", "math.pi * times"),
        ("**2", "**3"),
        ("= 1.0", "= 1.5"),
        ("times: int = 1", "times: int = 2"),
        ("import math\n", "import math\nimport cmath\n"),
        ("return times", "return '' or times"),
    ],
)
def test_code_counts(package, old, new):
    assert probe(package, old, new) != probe(package)


def test_code_of_imported_modules_counts(package):
    before = code_hash("icis.stages.inject", "icis.methods.icis")
    untouched = code_hash("icis.stages.describe")
    edit(package / "methods/encoders.py", "import torch\n", "# for the networks\nimport torch\n")
    assert code_hash("icis.stages.inject", "icis.methods.icis") == before
    edit(package / "methods/encoders.py", "import torch\n", "import torch\nimport math\n")
    assert code_hash("icis.stages.inject", "icis.methods.icis") != before
    assert code_hash("icis.stages.describe") == untouched


def test_a_module_written_out_anew_is_the_same(package):
    before = {name: code_hash(name) for name in MODULES}
    for path in package.rglob("*.py"):
        path.write_text(ast.unparse(ast.parse(path.read_text())) + "\n# the end\n")
    forget()
    assert {name: code_hash(name) for name in MODULES} == before


def test_a_method_touches_its_own_cells_only(package):
    before = {name: code_hash("icis.stages.inject", name) for name in METHODS}
    with (package / "methods/conse.py").open("a") as file:
        file.write("\nEXTRA = 1\n")
    forget()
    after = {name: code_hash("icis.stages.inject", name) for name in METHODS}
    assert before["icis.methods.conse"] != after["icis.methods.conse"]
    assert before["icis.methods.icis"] == after["icis.methods.icis"]
    assert before["icis.methods.mlp"] == after["icis.methods.mlp"]


def test_the_order_of_modules_does_not_count():
    names = ("icis.stages.inject", "icis.methods.icis", "icis.heads")
    assert code_hash(*names) == code_hash(*reversed(names)) == code_hash(*names, *names)


def test_injection_counts_what_its_method_needs():
    icis = closure("icis.stages.inject", "icis.methods.icis")
    assert {"icis.methods.encoders", "icis.methods.training", "icis.seeding"} <= icis
    assert "icis.methods.conse" not in icis
    conse = closure("icis.stages.inject", "icis.methods.conse")
    assert "icis.scorers" in conse
    assert "icis.methods.encoders" not in conse
    assert "icis.methods.icis" not in conse


@pytest.mark.parametrize("stage", [name for name in STAGES if "inject" not in name])
def test_no_stage_but_injection_counts_a_method(stage):
    # base is the interface: what a method is given and what it returns
    assert {*METHODS} & closure(stage) <= {"icis.methods.base"}


def test_evaluation_counts_the_evaluation():
    assert {"icis.evaluation", "icis.features", "icis.scorers"} <= closure("icis.stages.evaluate")


def test_training_of_heads_counts_no_extraction():
    assert not {"icis.extraction", "icis.backbones", "icis.finetuning"} & closure(
        "icis.stages.train_head"
    )


@pytest.mark.parametrize("module", MODULES)
def test_every_closure_is_made_of_files(module):
    found = closure(module)
    assert found or module in NEUTRAL
    assert not found & NEUTRAL
    for name in found:
        assert codeprint._file(name).is_file(), name


def test_modules_left_out_exist():
    for name in NEUTRAL:
        assert codeprint._file(name).is_file(), name


def test_what_type_checkers_alone_read_is_no_import(package):
    edit(
        package / "seeding.py",
        "import hashlib",
        "import hashlib\nfrom typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n"
        "    from icis.heads import Head\nelse:\n    from icis import features\n",
    )
    found = closure("icis.seeding")
    assert "icis.heads" in found  # through icis.features
    assert "icis.features" in found
    edit(package / "seeding.py", "else:\n    from icis import features\n", "")
    assert closure("icis.seeding") == {"icis.seeding"}


def test_ways_to_import(package):
    (package / "probe.py").write_text(
        "import icis.seeding\nimport icis.datasets.paths as p, os\n"
        "from icis import heads\nfrom icis.datasets import index\n"
        "from icis.artifacts import read_table\n\n\n"
        "def late():\n    from icis.features import Features\n"
    )
    found = closure("icis.probe")
    assert found >= {
        "icis.probe",
        "icis.seeding",
        "icis.datasets.paths",
        "icis.heads",
        "icis.datasets.index",
        "icis.artifacts",
        "icis.features",
    }


def test_what_was_found_is_kept_for_later_processes(package, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    elsewhere = code_hash("icis.stages.inject")
    assert not layout.code_facts().exists()  # Snakemake does not work here
    layout.code_facts().parent.mkdir(parents=True)
    forget()
    assert code_hash("icis.stages.inject") == elsewhere
    assert layout.code_facts().exists()
    with monkeypatch.context() as without_parsing:
        without_parsing.setattr(codeprint, "_normalised", None)
        forget()
        assert code_hash("icis.stages.inject") == elsewhere
    edit(package / "heads.py", "import torch\n", "import torch\nimport math\n")
    assert code_hash("icis.stages.inject") != elsewhere


@pytest.mark.parametrize(
    "text", ["", "[]", '{"by": ""}', '{"by": "another Python", "facts": {"a": 1}}']
)
def test_what_others_kept_or_is_damaged_does_not_count(package, tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    layout.code_facts().parent.mkdir(parents=True)
    whole = code_hash("icis.seeding")
    layout.code_facts().write_text(text)
    forget()
    assert code_hash("icis.seeding") == whole
    assert "another" not in layout.code_facts().read_text()
