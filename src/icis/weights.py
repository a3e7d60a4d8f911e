"""Files of pretrained weights: found on the Hugging Face hub or in a folder, and checked.

Both are timm's layout, a config.json beside a model.safetensors, and are loaded the same way.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError, safe_open

from icis.artifacts import file_sha256
from icis.compat import timm
from icis.config import Backbone
from icis.datasets.paths import expand
from icis.errors import IcisError
from icis.schema import suggest

CONFIG, WEIGHTS = "config.json", "model.safetensors"
TIMM = "timm/"
"""The organisation whose hub repositories all have timm's layout."""
SHOWN = 3
"""How many of the tensors that do not fit are named."""


@dataclass(frozen=True)
class ModelFiles:
    """A folder with config.json and model.safetensors; ``name`` says where they come from."""

    name: str
    folder: Path

    @property
    def config(self) -> dict[str, Any]:
        """Return what config.json says; the architecture is in it."""
        path = self.folder / CONFIG
        if not path.is_file():
            raise IcisError(f"{self.folder} has no config.json: it is no timm local-dir checkpoint")
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(found["architecture"], str):
                raise TypeError("'architecture' is no text")
        except (ValueError, KeyError, TypeError) as error:
            raise cannot_be_had(
                self.name,
                f"its config.json should name an 'architecture' ({type(error).__name__}: {error}); "
                "save the model by timm.models.save_for_hf, or fetch the file anew",
            ) from error
        return dict(found)

    @property
    def architecture(self) -> str:
        """Return timm's name of the architecture."""
        return str(self.config["architecture"]).partition(".")[0]

    def identity(self) -> dict[str, str]:
        """Return the SHA-256 of both files, by their names."""
        place = self.name.removeprefix("local-dir:")
        return {f"{place}/{file}": file_sha256(self.folder / file) for file in (CONFIG, WEIGHTS)}

    def check(self) -> None:
        """Refuse an architecture that timm does not know and weights that cannot be read."""
        check_model_name(self.architecture, self.name)
        path = self.folder / WEIGHTS
        if not path.is_file():
            found = ", ".join(sorted(each.name for each in self.folder.iterdir()))
            raise cannot_be_had(self.name, f"there is no {WEIGHTS} in {self.folder}, only: {found}")
        # the hub's client names a large file by its hash
        expected = path.resolve().name
        try:
            if re.fullmatch("[0-9a-f]{64}", expected) and file_sha256(path) != expected:
                raise SafetensorError(f"its SHA-256 is not {expected}")
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            why = f"{path} is damaged ({error}); delete it and fetch it anew"
            raise cannot_be_had(self.name, why) from error


def cannot_be_had(name: str, why: str) -> IcisError:
    """Return the error that a model or its weights cannot be had."""
    return IcisError(f"backbone {name}: the model or its weights cannot be had: {why}")


def check_model_name(model: str, name: str) -> None:
    """Refuse an architecture or a tag (``architecture.tag``) that timm does not know."""
    architecture, _, tag = model.partition(".")
    if not timm.models.is_model(architecture):
        hint = suggest(architecture, timm.list_models())
        raise cannot_be_had(name, f"timm {timm.__version__} knows no {architecture!r}; {hint}")
    if tag:
        try:
            timm.models.get_pretrained_cfg(model)
        except RuntimeError as error:
            known = [each.partition(".")[2] for each in timm.list_pretrained(f"{architecture}.*")]
            why = f"{architecture} has no weights {tag!r}; {suggest(tag, known)}"
            raise cannot_be_had(name, why) from error


def starting_files(config: Backbone) -> ModelFiles | None:
    """Return the files of the starting weights, fetched from the hub where they lie there.

    None where the weights are random, and for pretrained weights that are not in one of timm's own
    repositories on the hub: those timm fetches by itself.
    """
    kind, _, place = config.weights.partition(":")
    if kind == "random":
        return None
    if kind == "local-dir":
        files = ModelFiles(f"local-dir:{expand(place)}", expand(place))
        wanted = config.model.partition(".")[0]
        if wanted and files.architecture != wanted:
            raise IcisError(
                f"{files.name}: model is {config.model}, but config.json there says "
                f"{files.architecture}; leave 'model' out or name the right folder"
            )
    elif kind == "hf-hub":
        files = _from_hub(place)
    else:
        check_model_name(config.model, config.model)
        known = timm.models.get_pretrained_cfg(config.model)
        hub_id = str(getattr(known, "hf_hub_id", None) or "")
        if not hub_id.startswith(TIMM):
            return None
        files = _from_hub(hub_id)
    files.check()
    return files


def _from_hub(name: str) -> ModelFiles:
    repository, _, revision = name.partition("@")
    try:
        config = Path(hf_hub_download(repository, CONFIG, revision=revision or None))
        commit = config.parent.name  # both files of one commit, even if a new one comes meanwhile
        hf_hub_download(repository, WEIGHTS, revision=commit)
    except Exception as error:  # of the network, of the hub and of the disk
        raise cannot_be_had(f"hf-hub:{name}", _hub_problem(error, repository, revision)) from error
    return ModelFiles(f"hf-hub:{repository}@{commit}", config.parent)


def _hub_problem(error: Exception, repository: str, revision: str) -> str:
    """Say what failed at the hub and how to mend it."""
    hub = constants.ENDPOINT
    folder = f"or name a folder with {CONFIG} and {WEIGHTS}: weights: local-dir:FOLDER"
    if isinstance(error, RepositoryNotFoundError):
        return f"{hub} has no repository {repository} that you may read; check the name, {folder}"
    if isinstance(error, RevisionNotFoundError):
        return f"{hub}: {repository} has no revision {revision!r}; check it, {folder}"
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return f"{hub}: {repository} should have {CONFIG} and {WEIGHTS}, and lacks one; {folder}"
    cause = error.__cause__ or error
    reason = f"{type(cause).__name__}: {cause}".splitlines()[0]
    return (
        f"{hub} cannot be reached and {repository} is not in the cache, {constants.HF_HUB_CACHE} "
        f"({reason}); set HF_ENDPOINT to a mirror or HF_HOME to a filled cache, {folder}"
    )


def mismatches(files: ModelFiles, model: Any) -> str:
    """Return the first tensors in the file that ``model`` has not or has otherwise, in one line."""
    wanted = {key: list(value.shape) for key, value in model.state_dict().items()}
    with safe_open(files.folder / WEIGHTS, framework="pt") as tensors:
        given = {key: list(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118
    found = {
        "of another shape": [
            f"{key} is {given[key]}, not {shape}"
            for key, shape in wanted.items()
            if given.get(key, shape) != shape
        ],
        "missing": [key for key in wanted if key not in given],
        "not in the model": [key for key in given if key not in wanted],
    }
    return "; ".join(
        f"{len(keys)} {what}: {', '.join(keys[:SHOWN])}{', ...' if len(keys) > SHOWN else ''}"
        for what, keys in found.items()
        if keys
    )
