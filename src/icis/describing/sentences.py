"""Vectors of classes from sentences about them: names in templates, or free descriptions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icis.config import TextDescriptors
from icis.describing.names import article, class_texts, pairs, require_classes
from icis.describing.text import encode


def sentences_of(
    config: TextDescriptors, classes: Sequence[str]
) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """Return the sentences of every class, and what they are made of."""
    if config.descriptions is not None:
        given: dict[str, list[str]] = {}
        for _, each, text in pairs(config.descriptions, "sentence"):
            given.setdefault(each, []).append(text)
        require_classes(config.descriptions, given, classes, "description")
        return {each: given[each] for each in classes}, {"descriptions": config.descriptions}
    names = class_texts(classes, config.names)
    sentences = {
        each: [text.format(name=name, article=article(name)) for text in config.templates]
        for each, name in names.items()
    }
    return sentences, {"names": list(names.values()), "templates": config.templates}


def describe_sentences(
    config: TextDescriptors, sentences: dict[str, list[str]], *, device: str = "cpu"
) -> NDArray[np.float64]:
    """Return a vector [C, d] a class: the mean of its sentences' embeddings, each of length 1."""
    texts = [text for each in sentences.values() for text in each]
    embedded = encode(config, texts, device=device).astype(np.float64)
    lengths = np.linalg.norm(embedded, axis=1, keepdims=True)
    embedded /= np.where(lengths == 0, 1, lengths)  # zeros stay, to be refused by their class
    starts = np.cumsum([0, *map(len, sentences.values())])[:-1]
    counts = np.array([len(each) for each in sentences.values()])
    means: NDArray[np.float64] = np.add.reduceat(embedded, starts) / counts[:, None]
    return means
