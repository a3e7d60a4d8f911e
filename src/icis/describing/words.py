"""Vectors of class names from a table of word vectors: Numberbatch, Wikipedia2Vec and the like."""

from __future__ import annotations

import bz2
import gzip
import re
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from icis.errors import IcisError

Vector = NDArray[np.float64]
ENTITY = "ENTITY/"
"""What Wikipedia2Vec puts before the title of an article."""
HEADER = re.compile(rb"\d+\s+(\d+)")


def describe_names(
    names: Mapping[str, str], path: Path
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Return a vector [C, d] for every class's name, and what they are made of.

    It is the vector of the whole name if the table has one, else the mean over its words, those
    that the table lacks left out. A class none of whose words is known is an error.
    """
    wanted = {text for name in names.values() for text in (*phrases(name), *words(name))}
    table = word_vectors(path, wanted)
    rows, missing, unknown, whole = [], set[str](), [], 0
    for each, name in names.items():
        phrase = next((table[text] for text in phrases(name) if text in table), None)
        parts = list(_parts(name, table))
        known = [table[text] for text in parts if text in table]
        if phrase is not None:
            whole += 1
            rows.append(phrase)
        elif known:
            missing.update(text for text in parts if text not in table)
            rows.append(np.mean(known, axis=0))
        else:
            unknown.append(each if each == name else f"{each} ({name})")
    if unknown:
        raise IcisError(
            f"{path} has no word of the names of {len(unknown)} of {len(names)} classes: "
            f"{', '.join(unknown)}; give the classes names with 'names: FILE' (class, tab, name)"
        )
    facts = {
        "names": list(names.values()),
        "whole_names": whole,
        "averaged_names": len(names) - whole,
        "missing_words": sorted(missing),
    }
    return np.stack(rows), facts


def phrases(name: str) -> list[str]:
    """Return how tables may write a whole name, the likeliest first.

    Numberbatch joins the words by underscores, for hyphens too; Wikipedia2Vec has the titles of
    articles, of which only the first letter is sure to be a capital.
    """
    joined = "_".join(name.split())
    lower = joined.lower()
    title = "_".join(word[:1].upper() + word[1:] for word in joined.split("_"))
    titles = [ENTITY + text for text in (joined[:1].upper() + joined[1:], title)]
    return list(dict.fromkeys([lower, lower.replace("-", "_"), *titles]))


def words(name: str) -> list[str]:
    """Return a name's words in lower case, and the parts of those with a hyphen."""
    found = []
    for word in name.lower().split():
        found += [word, *filter(None, word.split("-"))]
    return list(dict.fromkeys(found))


def _parts(name: str, table: Mapping[str, Vector]) -> Iterator[str]:
    """Yield the words that a name's mean is taken over; a word unknown with a hyphen is split."""
    for word in name.lower().split():
        yield from [word] if word in table else filter(None, word.split("-"))


def word_vectors(path: Path, wanted: Collection[str]) -> dict[str, Vector]:
    """Return the vectors [d] of the words wanted, as far as the file has them.

    The file is text, plain or as .gz or .bz2: a word and its d components a line; a first line of
    two whole numbers (lines, d) is skipped. Of a word that stands twice the first counts. Files of
    millions of lines are streamed.
    """
    keys = {word.encode(): word for word in wanted}
    found: dict[str, Vector] = {}
    dim = 0
    with (
        _reading(path) as file,
        tqdm(file, desc=path.name, unit=" words", disable=None, leave=False) as lines,
    ):
        for number, line in enumerate(lines, 1):
            content = line.strip()
            header = HEADER.fullmatch(content) if number == 1 else None
            if header:
                dim = int(header[1])
            if header or not content:
                continue
            word, _, rest = content.replace(b"\t", b" ").partition(b" ")
            components = rest.count(b" ") + 1 if rest else 0
            dim = dim or components
            if components != dim or not dim:
                raise IcisError(
                    f"{path}, line {number}: expected a word and {dim or 'some'} numbers, it has "
                    f"{components} after {word.decode(errors='replace')!r}"
                )
            if word in keys:
                found.setdefault(keys[word], _numbers(rest, path, number))
    return found


def _numbers(text: bytes, path: Path, number: int) -> Vector:
    try:
        return np.array(text.split(b" "), dtype=np.float64)
    except ValueError as error:
        raise IcisError(f"{path}, line {number}: {error}") from error


@contextmanager
def _reading(path: Path) -> Iterator[Iterable[bytes]]:
    """Give the lines of a text file; whatever goes wrong with it while it is read names it."""
    try:
        with path.open("rb") as file:
            if path.suffix == ".gz":
                yield gzip.GzipFile(fileobj=file)
            elif path.suffix == ".bz2":
                yield bz2.BZ2File(file)
            else:
                yield file
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise IcisError(f"{path}, a table of word vectors, cannot be read: {reason}") from error
