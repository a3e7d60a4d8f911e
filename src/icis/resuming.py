"""The state of a training run on disk, so that a killed run goes on where it was.

``epoch-<n>.safetensors`` holds the tensors; ``checkpoint.json``, written last, names it with its
hash and holds the rest.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from icis.artifacts import atomic_path, file_sha256, write_json
from icis.errors import IcisError

MARK = "checkpoint.json"


def save_state(
    folder: Path, epoch: int, tensors: dict[str, torch.Tensor], facts: dict[str, Any]
) -> None:
    """Write the state after an epoch; what was there before stays valid until this is whole."""
    path = folder / f"epoch-{epoch}.safetensors"
    # cloned: safetensors refuses tensors that share memory, as tied weights do
    plain = {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in tensors.items()
    }
    with atomic_path(path) as temporary:
        save_file(plain, temporary)
    write_json(folder / MARK, {"tensors": path.name, "sha256": file_sha256(path), "facts": facts})
    for other in folder.iterdir():  # earlier epochs, and what kills left behind
        if other.name not in (MARK, path.name):
            other.unlink()


def load_state(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Return tensors and facts of the last epoch saved; None where there is none that is whole."""
    mark = folder / MARK
    if not mark.exists():
        return None
    try:
        about = json.loads(mark.read_text(encoding="utf-8"))
        path = folder / about["tensors"]
        if file_sha256(path) != about["sha256"]:
            raise IcisError(f"{path} has another hash than {MARK} says")
        return load_file(path), dict(about["facts"])
    except (OSError, ValueError, KeyError, TypeError, IcisError) as error:
        say(f"{mark} is damaged ({error}): training starts from the beginning")
        return None


def say(text: str) -> None:
    """Print a line to stderr, past a progress bar."""
    tqdm.write(text, file=sys.stderr)
