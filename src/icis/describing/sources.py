"""Descriptors of any kind of source: from a file, word vectors or a text encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from icis.artifacts import file_sha256
from icis.config import DescriptorSource, FileDescriptors, TextDescriptors, WordDescriptors
from icis.datasets.descriptors import Descriptors, checked, read_descriptors
from icis.datasets.index import Classes
from icis.datasets.paths import expand
from icis.describing.names import class_texts
from icis.describing.words import describe_names
from icis.errors import IcisError

Made = tuple[Descriptors, dict[str, str], dict[str, Any]]
"""Descriptors, the hashes of the files that they are made of, and what else is known of them."""


def _read(name: str) -> tuple[Path, bytes]:
    path = expand(name)
    try:
        return path, path.read_bytes()
    except OSError as error:
        raise IcisError(f"{path} cannot be read: {error.strerror}") from error


def read_source(
    source: DescriptorSource,
    classes: Classes,
    *,
    read: Callable[[str], tuple[Path, bytes]] = _read,
    device: str = "cpu",
) -> Made:
    """Return a source's descriptors of the classes, in their order.

    ``read`` gives path and bytes of a file of vectors, which may lie in an archive; ``device`` is
    where a text encoder works.
    """
    if isinstance(source, WordDescriptors):
        return _from_words(source, classes)
    if isinstance(source, TextDescriptors):
        return _from_text(source, classes, device)
    return _from_file(source, classes, read)


def _from_file(
    source: FileDescriptors, classes: Classes, read: Callable[[str], tuple[Path, bytes]]
) -> Made:
    path, data = read(source.file)
    sources = {source.file: hashlib.sha256(data).hexdigest(), **_hashes(source.classes)}
    return read_descriptors(source, path, data, classes), sources, {}


def _from_words(source: WordDescriptors, classes: Classes) -> Made:
    path = expand(source.vectors)
    vectors, facts = describe_names(class_texts(classes.names, source.names), path)
    found = checked(vectors, classes, str(path), source.normalize)
    return found, _hashes(source.vectors, source.names), {"words": facts}


def _from_text(source: TextDescriptors, classes: Classes, device: str) -> Made:
    # torch and the encoders' libraries take seconds to import
    from icis.describing.sentences import describe_sentences, sentences_of
    from icis.describing.text import encoder_facts, weight_hashes

    sentences, facts = sentences_of(source, classes.names)
    vectors = describe_sentences(source, sentences, device=device)
    found = checked(vectors, classes, source.model, source.normalize)
    read = _hashes(source.descriptions or source.names)
    facts |= encoder_facts(source) | {"device": device}
    return found, read | weight_hashes(source), {"text": facts}


def _hashes(*files: str | None) -> dict[str, str]:
    return {name: file_sha256(expand(name)) for name in files if name is not None}
