"""Published numbers to set beside ours, from ``published.yaml``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from icis.config.experiment import Metric
from icis.config.names import Count, Name
from icis.errors import ConfigError, IcisError
from icis.rows import Published
from icis.schema import Strict, suggest

FILE = Path(__file__).with_name("published.yaml")

SeenCount = Count | Literal["all"]
Text = Annotated[str, Field(min_length=1)]


class Number(Strict):
    """A number with the deviation over its runs and how many these were."""

    value: float
    std: Annotated[float, Field(ge=0)] | None = None
    n: Count


Entry = float | Number | None


class Numbers(Strict):
    """What a block says of one data set, descriptor and number of seen classes."""

    dataset: Name
    descriptor: Name
    n_seen: SeenCount | list[SeenCount] = "all"
    """How many seen classes the methods learnt from; a list names one number in several ways."""
    rows: Annotated[dict[Name, list[Entry]], Field(min_length=1)]
    """A method's numbers in the order of the block's metrics, null where there is none."""

    @property
    def seen_counts(self) -> list[str]:
        """Return ``n_seen`` as it stands in the groups of a table."""
        return [str(n) for n in (self.n_seen if isinstance(self.n_seen, list) else [self.n_seen])]


class Block(Strict):
    """Published numbers that belong together."""

    source: Text
    certainty: Text
    """How sure the numbers are: who reprints them, how often they were seen."""
    selection: Text
    """What epochs and models were selected on, as in ``seen head selected on test_seen``."""
    metrics: Annotated[list[Metric], Field(min_length=1)]
    names: dict[Name, str] = {}
    """How methods are called where the table has no row for them; by default their keys."""
    aliases: dict[Name, Name] = {}
    """Other keys of methods, to the keys in the rows."""
    columns: Annotated[list[Numbers], Field(min_length=1)]

    @property
    def keys(self) -> list[str]:
        """Return the keys of all methods, in the order of their first appearance."""
        return list(dict.fromkeys(key for column in self.columns for key in column.rows))

    def row(self, key: str) -> str:
        """Return the key in the rows that a method's key stands for."""
        return self.aliases.get(key, key)

    def find(
        self, key: str, metric: str, *, dataset: str, descriptor: str, n_seen: str
    ) -> Published | None:
        """Return a number, None where there is none."""
        for column in self.columns:
            there = column.dataset == dataset and column.descriptor == descriptor
            if there and n_seen in column.seen_counts and metric in self.metrics:
                row = column.rows.get(self.row(key))
                entry = row[[str(each) for each in self.metrics].index(metric)] if row else None
                if isinstance(entry, Number):
                    return Published(entry.value, entry.std, entry.n)
                return None if entry is None else Published(entry)
        return None

    @field_validator("metrics")
    @classmethod
    def _differ(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError("no metric may stand there twice")
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = list(self._problems())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        places = set[tuple[str, str, str]]()
        for column in self.columns:
            for n_seen in column.seen_counts:
                place = (column.dataset, column.descriptor, n_seen)
                if place in places:
                    yield f"{' / '.join(place)} is there twice"
                places.add(place)
            for key, row in column.rows.items():
                if len(row) != len(self.metrics):
                    wanted = f"{len(self.metrics)} ({', '.join(self.metrics)})"
                    yield f"{column.dataset}, {key}: there are {len(row)} numbers, not {wanted}"
        for key in [*self.names, *self.aliases.values()]:
            if key not in self.keys:
                yield f"no row belongs to {key!r}; {suggest(key, self.keys)}"
        for key in self.aliases:
            if key in self.keys:
                yield f"{key!r} is an alias and has rows of its own"


BLOCKS = TypeAdapter(dict[Name, Block])


def read_blocks(path: Path = FILE) -> dict[str, Block]:
    """Read a file of published numbers; list every problem with its path."""
    try:
        data = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, YAMLError) as error:
        what = " ".join(str(error).split())
        raise ConfigError(str(path), [f"it cannot be read: {what}"]) from error
    try:
        return BLOCKS.validate_python(data, strict=True)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, each['loc'])) or 'the file'}: "
            + each["msg"].removeprefix("Value error, ")
            for each in error.errors(include_url=False)
        ]
        raise ConfigError(str(path), problems) from None


@cache
def _own() -> dict[str, Block]:
    return read_blocks()


def blocks() -> tuple[str, ...]:
    """Return the names of the blocks that a table may name under ``published``."""
    return tuple(_own())


def block(name: str) -> Block:
    """Return a block by its name."""
    if name not in _own():
        raise IcisError(no_such_block(name))
    return _own()[name]


def no_such_block(name: str) -> str:
    """Say that there is no such block, and which there are."""
    return f"there is no block of published numbers {name!r}; {suggest(name, blocks())}"
