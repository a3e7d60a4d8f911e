"""What can be fetched and what it is good for: the package's catalogue, with the user's over it.

``ICIS_CATALOGUE`` names a YAML file that is merged over the package's own: entry by entry, key by
key, and the files of a source by their names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from icis.errors import IcisError
from icis.schema import Strict, suggest

FOLDER = Path(__file__).with_name("catalogue")
OWN = "the catalogue of icis"
PREFIX = "fetched:"
ALL = "all"
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2")
COUNTS = (
    "classes",
    "seen",
    "unseen",
    "attributes",
    "images",
    "trainval",
    "test_seen",
    "test_unseen",
)

Text = Annotated[str, Field(min_length=1)]
EntryName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
"""A source's or benchmark's name: no dot, since files beside its folder are told by a suffix."""
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$")]
Md5 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Size = Annotated[int, Field(gt=0)]


def is_archive(name: str) -> bool:
    """Tell whether a file of this name can be unpacked."""
    return name.endswith(ARCHIVES)


class SourceFile(Strict):
    """A file to fetch, with what its publishers say of it."""

    name: FileName
    urls: list[str] = []
    """Official addresses, tried in this order; none where only ICIS_MIRROR can give the file."""
    size: Size | None = None
    """Bytes."""
    md5: Md5 | None = None
    sha256: Sha256 | None = None
    unpack: bool = Field(default_factory=lambda data: is_archive(data.get("name", "")))

    @property
    def has_checksum(self) -> bool:
        """Tell whether a checksum is published."""
        return bool(self.md5 or self.sha256)

    @field_validator("urls")
    @classmethod
    def _are_urls(cls, value: list[str]) -> list[str]:
        for url in value:
            if not re.fullmatch(r"https?://[^\s/]+/\S+", url):
                raise ValueError(f"{url!r} is no address; expected https://… or http://…")
        return value

    @model_validator(mode="after")
    def _can_be_unpacked(self) -> Self:
        if self.unpack and not is_archive(self.name):
            raise ValueError(
                f"{self.name} cannot be unpacked; give unpack: false, or a name that ends in one "
                f"of {', '.join(ARCHIVES)}"
            )
        return self


class Source(Strict):
    """A named bundle of files."""

    title: Text
    homepage: Text
    licence: Text
    """What the terms allow."""
    files: Annotated[list[SourceFile], Field(min_length=1)]
    unpacked_size: Size | None = None
    """Bytes of all files together once unpacked."""
    note: str = ""

    @property
    def size(self) -> int | None:
        """Return the bytes to download, None where some file's size is not known."""
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(size or 0 for size in sizes)

    @model_validator(mode="after")
    def _differ(self) -> Self:
        names = [file.name for file in self.files]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"files: {', '.join(twice)} stands there twice")
        return self


class Benchmark(Strict):
    """A data set of zero-shot learning: its sources, where its parts lie in them, its counts."""

    title: Text
    sources: Annotated[list[str], Field(min_length=1)]
    splits: Text
    """Such as ``fetched:xlsa17/**/CUB/att_splits.mat``: a source, then a glob in its folder."""
    labels: Text
    images: Text | None = None
    boxes: Text | None = None
    counts: dict[str, Size]

    @property
    def places(self) -> dict[str, str]:
        """Return where its parts lie, by role, those alone that there are."""
        roles = ("splits", "labels", "images", "boxes")
        return {role: getattr(self, role) for role in roles if getattr(self, role)}

    @field_validator("counts")
    @classmethod
    def _are_counts(cls, value: dict[str, int]) -> dict[str, int]:
        for key in value:
            if key not in COUNTS:
                raise ValueError(f"unknown key {key!r}; {suggest(key, COUNTS)}")
        return value


class Catalogue(Strict):
    """All sources and benchmarks by their names."""

    sources: dict[EntryName, Source]
    benchmarks: dict[EntryName, Benchmark]

    def source(self, name: str) -> Source:
        """Return a source; an unknown name gets a suggestion."""
        if name not in self.sources:
            raise IcisError(f"there is no source {name!r}; {suggest(name, self.sources)}")
        return self.sources[name]

    def benchmark(self, name: str) -> Benchmark:
        """Return a benchmark; an unknown name gets a suggestion."""
        if name not in self.benchmarks:
            raise IcisError(f"there is no benchmark {name!r}; {suggest(name, self.benchmarks)}")
        return self.benchmarks[name]

    def sources_of(self, names: Iterable[str]) -> list[str]:
        """Return the sources of names of sources or benchmarks, or ``all``, each of them once."""
        found = list[str]()
        for name in names:
            if name == ALL:
                found += self.sources
            elif name in self.benchmarks:
                found += self.benchmarks[name].sources
            elif name in self.sources:
                found.append(name)
            else:
                known = [*self.sources, *self.benchmarks, ALL]
                raise IcisError(f"there is no source or benchmark {name!r}; {suggest(name, known)}")
        return list(dict.fromkeys(found))

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = list(self._problems())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        for name in [*self.sources, *self.benchmarks]:
            if name == ALL or (name in self.sources and name in self.benchmarks):
                yield f"the name {name!r} would mean two things; choose another"
        for name, benchmark in self.benchmarks.items():
            for source in benchmark.sources:
                if source not in self.sources:
                    hint = suggest(source, self.sources)
                    yield f"benchmarks.{name}.sources: there is no source {source!r}; {hint}"
            for role, text in benchmark.places.items():
                named = source_of(text)
                if named is not None and named not in benchmark.sources:
                    hint = suggest(named, benchmark.sources)
                    yield f"benchmarks.{name}.{role}: {named!r} is none of its sources; {hint}"


def source_of(text: str) -> str | None:
    """Return the source that a ``fetched:<source>/<glob>`` names, None for any other text."""
    if not text.startswith(PREFIX):
        return None
    return text.removeprefix(PREFIX).split("/", 1)[0]


def read_catalogue() -> Catalogue:
    """Read the package's catalogue and merge the file named by ``ICIS_CATALOGUE`` over it.

    Raises
    ------
    IcisError
        Every problem of the file, with the path of its key.
    """
    own: Any = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        own = _merged(own, _load(path))
    given = os.environ.get("ICIS_CATALOGUE")
    if not given:
        return _parse(own, OWN, own)
    data = _load(Path(given).expanduser())
    return _parse(_merged(own, data), f"{given} (named by ICIS_CATALOGUE)", own)


def _load(path: Path) -> Any:
    try:
        data = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise IcisError(
            f"{path} (ICIS_CATALOGUE) cannot be read: {error.strerror}; name a YAML file with the "
            "keys sources and benchmarks, or unset ICIS_CATALOGUE"
        ) from error
    except (YAMLError, ValueError, RecursionError) as error:
        what = " ".join(str(error).split())
        if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
            what = f"{error.problem} (line {error.problem_mark.line + 1})"
        raise IcisError(f"{path} is no valid YAML: {what}") from error
    if not isinstance(data, dict):
        raise IcisError(f"{path}: expected a mapping with the keys sources, benchmarks or both")
    return data


def _merged(base: Any, over: Any, key: str = "") -> Any:
    if isinstance(base, dict) and isinstance(over, dict):
        changed = {k: _merged(base[k], v, k) if k in base else v for k, v in over.items()}
        return {**base, **changed}
    if key == "files" and isinstance(base, list) and _are_named(over):
        files = {file["name"]: file for file in base}
        return list(_merged(files, {file["name"]: file for file in over}).values())
    return over


def _are_named(files: Any) -> bool:
    return isinstance(files, list) and all(
        isinstance(file, dict) and isinstance(file.get("name"), str) for file in files
    )


def _parse(data: Any, where: str, own: Any) -> Catalogue:
    try:
        return Catalogue.model_validate(data)
    except ValidationError as error:
        problems = [_in_words(each, own) for each in error.errors(include_url=False)]
        raise IcisError(f"{where} is no catalogue:\n  " + "\n  ".join(problems)) from None


IN_WORDS = {
    "bool_type": "expected true or false",
    "dict_type": "expected a mapping",
    "int_type": "expected a whole number",
    "list_type": "expected a list",
    "model_type": "expected a mapping of keys to values",
    "string_type": "expected text",
    "too_short": "expected at least one entry",
}
PATTERNS = {
    "md5": "expected 32 of the characters 0-9 and a-f",
    "sha256": "expected 64 of the characters 0-9 and a-f",
    "name": "expected a plain file name of letters, digits, '.', '_', '+' and '-'",
    "[key]": "expected a name of letters, digits, '_' and '-'",
}


def _in_words(problem: ErrorDetails, own: Any) -> str:
    kind, location = problem["type"], problem["loc"]
    where = ".".join(str(step) for step in location if step != "[key]") or "the file"
    if kind == "missing":
        return f"{where}: it is missing" + _perhaps_meant(location, own)
    if kind == "unknown_key":
        return f"{where}: {problem['msg']}"
    last = str(location[-1]) if location else ""
    message = PATTERNS.get(last, "") if kind == "string_pattern_mismatch" else IN_WORDS.get(kind)
    message = message or problem["msg"].removeprefix("Value error, ")
    if isinstance(problem["input"], dict | Strict):
        return f"{where}: {message}"
    shown = "nothing" if problem["input"] is None else repr(problem["input"])
    return f"{where}: {message}, found {shown[:80]}"


def _perhaps_meant(location: tuple[int | str, ...], own: Any) -> str:
    """Return a hint where a new entry looks like a mistyped name of the package's own."""
    if len(location) < 3 or location[1] in own.get(str(location[0]), {}):
        return ""
    hint = suggest(str(location[1]), own.get(str(location[0]), {}))
    return f" ({hint})" if "mean" in hint else ""
