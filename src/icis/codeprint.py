"""A hash of the code that a step runs: its module and every module of icis that it imports.

Comments, docstrings and formatting do not count. Modules that only describe, validate or point
(their values reach a step through its settings) do not count either.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from icis import layout

PACKAGE = Path(__file__).parent
NEUTRAL = frozenset(
    {
        "icis",
        "icis.cli",
        "icis.codeprint",
        "icis.config",
        "icis.config.datasets",
        "icis.config.experiment",
        "icis.config.models",
        "icis.config.names",
        "icis.config.reading",
        "icis.errors",
        "icis.experiment_files",
        "icis.fetching.benchmarks",
        "icis.fetching.catalogue",
        "icis.fetching.receipts",
        "icis.layout",
        "icis.methods",
        "icis.plan",
        "icis.schema",
        "icis.seals",
        "icis.stages",
    }
)


@cache
def code_hash(*modules: str) -> str:
    """Return the hash of the modules named and of all that they import, nested imports too."""
    state = hashlib.sha256()
    for name, code in module_hashes(*modules).items():
        state.update(f"{name} {code}\n".encode())
    return state.hexdigest()


def module_hashes(*modules: str) -> dict[str, str]:
    """Return a hash of each of the modules named and of all that they import, by name."""
    known = len(_kept())
    found = {name: str(_facts(name)["code"]) for name in sorted(closure(*modules))}
    if len(_kept()) > known:
        _keep()
    return found


def closure(*modules: str) -> set[str]:
    """Return the modules of icis that count for the ones named."""
    waiting, found = list(modules), set[str]()
    while waiting:
        name = waiting.pop()
        if name in found or name in NEUTRAL:
            continue
        found.add(name)
        waiting += _imported(name)
    return found


def _file(module: str) -> Path:
    path = PACKAGE.joinpath(*module.split(".")[1:])
    package = path / "__init__.py"
    return package if package.is_file() else path.with_suffix(".py")


@cache
def _kept() -> dict[str, dict[str, Any]]:
    """Return what was found of modules, in earlier processes too, by the hash of their text."""
    try:
        found = json.loads(layout.code_facts().read_bytes())
        facts: dict[str, dict[str, Any]] = found["facts"] if found["by"] == _by() else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return facts


def _keep() -> None:
    """Let later processes know: parsing the modules would take each of them half a second."""
    from icis.artifacts import write_json

    file = layout.code_facts()
    if file.parent.is_dir():  # Snakemake works here
        with suppress(OSError):
            write_json(file, {"by": _by(), "facts": _kept()})


@cache
def _by() -> str:
    """Return what the facts depend on besides a module's text: Python, and this module."""
    own = Path(__file__).read_bytes()
    return hashlib.sha256(f"{sys.version} ".encode() + own).hexdigest()


@cache
def _facts(module: str) -> dict[str, Any]:
    """Return the hash of a module's code, and what it imports of icis: [module, names]."""
    text = _file(module).read_bytes()
    key, kept = hashlib.sha256(text).hexdigest(), _kept()
    if key not in kept:
        tree = ast.parse(text)
        imports = sorted(_imports(tree))  # first, for the normalised tree has lost nodes
        code = hashlib.sha256(_normalised(tree).encode()).hexdigest()
        kept[key] = {"imports": imports, "code": code}
    return kept[key]


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a node and all nodes in it, but for what type checkers alone read."""
    yield node
    inner: Iterable[ast.AST] = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        inner = node.orelse
    for child in inner:
        yield from _running(child)


def _imports(tree: ast.Module) -> Iterator[tuple[str, list[str]]]:
    for node in _running(tree):
        if isinstance(node, ast.Import):
            yield from ((each.name, []) for each in node.names if each.name.startswith("icis."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "icis":
            yield str(node.module), [each.name for each in node.names]


def _imported(module: str) -> set[str]:
    """Return the modules of icis that a module imports, or takes names from."""
    found = set()
    for base, names in _facts(module)["imports"]:
        submodules = {name for each in names if _file(name := f"{base}.{each}").is_file()}
        found |= submodules
        if len(submodules) < len({*names}) or not names:
            found.add(base)
    return found


def _normalised(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [each for each in node.body if not _is_text(each)] or [ast.Pass()]
    return ast.dump(tree)


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
