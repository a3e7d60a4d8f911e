"""Results by the name of a folder, of an experiment or of a git revision."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from icis import layout
from icis.artifacts import read_frame, read_metadata
from icis.errors import IcisError
from icis.rows import COLUMNS
from icis.versions.record import SCHEMA
from icis.versions.versus import Version

METRICS = layout.metrics("x").name
NEEDED = ("schema", "settings", "places", "code", "sources", "cells")


def read_version(name: str) -> Version:
    """Return the results that a name stands for; a revision's come from DVC, nothing is computed.

    ``name`` is a folder, an experiment in ``results/``, a git revision, or revision:experiment.
    """
    folder = Path(name)
    if folder.is_dir():
        return load(folder / METRICS, name)
    experiment = layout.results(name) if "/" not in name else folder
    revision, _, wanted = name.partition(":")
    commit = find_commit(revision)
    if experiment.is_dir() and commit:
        raise IcisError(
            f"{name!r} is an experiment and a git revision: write {experiment} for the first and "
            f"{name}:{name} or refs/heads/{name} for the second"
        )
    if experiment.is_dir():
        return load(experiment / METRICS, name)
    if commit:
        return _revision(name, commit, wanted)
    there = sorted(path.parent.name for path in Path("results").glob(f"*/{METRICS}"))
    raise IcisError(
        f"{name!r} is no folder with results, no experiment in results/ (there are: "
        f"{', '.join(there) or 'none'}) and no git revision of this project (see git log)"
    )


def load(path: Path, label: str) -> Version:
    """Return the results in a ``metrics.parquet``; refuse what another schema wrote."""
    if not path.is_file():
        raise IcisError(
            f"{label}: {path} does not exist; compute it with snakemake, or bring it back with "
            "icis pull"
        )
    frame, about = read_frame(path), read_metadata(path)
    lacking = [key for key in NEEDED if key not in about]
    columns = [name for name in COLUMNS if name not in frame.columns]
    if about.get("schema") != SCHEMA or lacking or columns:
        told = [f"its schema is {about.get('schema', 'not recorded')}, this icis reads {SCHEMA}"]
        told += [f"it lacks the columns {', '.join(columns)}"] if columns else []
        told += [f"its metadata lack {', '.join(lacking)}"] if lacking else []
        raise IcisError(
            f"{label}: {path.name} was written by another version of icis ({'; '.join(told)}). "
            "Make it anew with snakemake, which keeps what is still valid, or compare with the "
            "version of icis that wrote it"
        )
    return Version(label, frame, about)


def find_commit(revision: str) -> str:
    """Return the commit of a git revision or of a DVC experiment, empty where there is none."""
    if not revision or revision.startswith("-"):
        return ""
    found = git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}").strip()
    if found:
        return found
    listed = git("for-each-ref", "refs/exps", "--format=%(objectname) %(refname)").splitlines()
    named = [line.split()[0] for line in listed if line.endswith(f"/{revision}")]
    return named[0] if named else ""


def git(*arguments: str) -> str:
    """Return what git prints, nothing where it fails or is absent."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout if done.returncode == 0 else ""


def _revision(label: str, commit: str, wanted: str) -> Version:
    recorded = _recorded(label, commit)
    if not recorded:
        raise IcisError(
            f"{label}: DVC recorded no results at this revision (its dvc.lock has none); choose "
            "one at which dvc.lock was committed after dvc repro (git log -- dvc.lock)"
        )
    if wanted and wanted not in recorded:
        raise IcisError(
            f"{label}: DVC recorded no results of {wanted!r} at this revision, only of: "
            f"{', '.join(recorded)}"
        )
    if not wanted and len(recorded) > 1:
        choices = ", ".join(f"{label}:{name}" for name in recorded)
        raise IcisError(f"{label}: several experiments are recorded there, choose: {choices}")
    path = recorded[wanted or next(iter(recorded))]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / METRICS
        _get(label, commit, path, copy)
        return load(copy, label)


def _recorded(label: str, commit: str) -> dict[str, str]:
    """Return the path of the metrics of every experiment in a revision's ``dvc.lock``."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    text = git("show", f"{commit}:dvc.lock")
    try:
        lock: dict[str, Any] = YAML(typ="safe").load(text) or {}
    except YAMLError as error:
        raise IcisError(f"{label}: its dvc.lock is no YAML: {error}") from error
    stages = (lock.get("stages") or {}).values()
    paths = [Path(out["path"]) for stage in stages for out in stage.get("outs", [])]
    return {path.parent.name: str(path) for path in paths if path.name == METRICS}


def _get(label: str, commit: str, path: str, target: Path) -> None:
    """Copy a file as a revision has it, from DVC's cache or else from the remote of today."""
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as here:
            remotes = {key: here.config[key] for key in ("core", "remote")}
        with Repo(rev=commit, config=remotes) as repo:
            DVCFileSystem(repo=repo).get_file(path, str(target))
    except (DvcException, OSError) as error:
        raise IcisError(
            f"{label}: {path} of commit {commit[:8]} is neither in DVC's cache here nor in a "
            f"remote ({error}). Where it was computed: dvc push --all-commits. Here: dvc remote "
            f"list should name that remote; or compute it anew: git checkout {commit[:8]} && "
            "dvc repro"
        ) from error
