"""Names of configurations that are part of paths."""

from __future__ import annotations

import re
from collections.abc import Sequence

from icis.config import AnyHead, GivenHead
from icis.schema import Strict, canonical_hash

LONGEST_VARIANT = 100


def variant_slug(settings: Strict, *, ignore: Sequence[str] = ()) -> str:
    """Return an ASCII slug of the settings that differ from the defaults."""
    found = {key: value for key, value in settings.differences().items() if key not in ignore}
    parts = [f"{key.rsplit('.', 1)[-1]}-{value}" for key, value in found.items()]
    slug = "_".join(re.sub(r"[^a-z0-9.-]+", "-", part.lower().replace("e+", "e")) for part in parts)
    if len(slug) > LONGEST_VARIANT:
        slug = f"{slug[:LONGEST_VARIANT]}-{canonical_hash(found)[:8]}"
    return slug or "default"


def head_slug(key: str, recipe: AnyHead) -> str:
    """Name a seen head for paths and the column ``head``.

    One trained here by its recipe and selection, a given one by its key in the experiment file.
    """
    if isinstance(recipe, GivenHead):
        return f"given-{key}"
    variant = variant_slug(recipe, ignore=("selection",))
    return f"linear-{recipe.selection}" + ("" if variant == "default" else f"_{variant}")
