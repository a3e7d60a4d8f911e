"""A hash of the code that a step runs: its module and every module of icis that it imports.

Comments, docstrings and formatting do not count. Modules that only describe, validate or point
(their values reach a step through its settings) do not count either.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

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
    for name in sorted(closure(*modules)):
        state.update(f"{name}\n{_normalised(name)}\n".encode())
    return state.hexdigest()


def module_hashes(*modules: str) -> dict[str, str]:
    """Return a hash of each of the modules named and of all that they import."""
    texts = {name: _normalised(name) for name in sorted(closure(*modules))}
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}


def closure(*modules: str) -> set[str]:
    """Return the modules of icis that count for the ones named."""
    waiting, found = list(modules), set[str]()
    while waiting:
        name = waiting.pop()
        if name in found or name in NEUTRAL:
            continue
        found.add(name)
        waiting += _imports(name)
    return found


def _file(module: str) -> Path:
    path = PACKAGE.joinpath(*module.split(".")[1:])
    package = path / "__init__.py"
    return package if package.is_file() else path.with_suffix(".py")


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_file(module).read_text())


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a node and all nodes in it, but for what type checkers alone read."""
    yield node
    inner: Iterable[ast.AST] = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        inner = node.orelse
    for child in inner:
        yield from _running(child)


@cache
def _imports(module: str) -> frozenset[str]:
    found = set()
    for node in _running(_tree(module)):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names if each.name.startswith("icis.")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "icis":
            base = str(node.module)
            inner = {f"{base}.{each.name}" for each in node.names}
            submodules = {name for name in inner if _file(name).is_file()}
            found |= submodules
            if len(submodules) < len(inner):
                found.add(base)
    return frozenset(found)


@cache
def _normalised(module: str) -> str:
    tree = ast.parse(_file(module).read_text())
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
