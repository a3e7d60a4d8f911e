"""The MLflow store: where it is, how it is opened, what it lists.

By default a SQLite file, made once under a lock: two processes that both find none would leave a
broken one.
"""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from icis.errors import IcisError

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read by MLflow on import

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

__all__ = [
    "Metric",
    "MlflowClient",
    "Param",
    "Run",
    "RunTag",
    "decode",
    "delete_artifact",
    "encode",
    "list_runs",
    "open_experiment",
    "open_store",
    "public_uri",
    "tracking_uri",
]

RUNS_A_PAGE = 1000


def tracking_uri() -> str:
    """Return ``MLFLOW_TRACKING_URI``, or a SQLite file in the working directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"


def public_uri(uri: str) -> str:
    """Return a URI without user, password and query."""
    bare = uri.partition("?")[0]
    return bare if bare.startswith("sqlite") else re.sub(r"//.*@", "//", bare)


def _sqlite_file(uri: str) -> Path | None:
    if not uri.startswith("sqlite"):
        return None
    return Path(uri.partition("///")[2].partition("?")[0]).absolute()


@contextmanager
def open_store(uri: str, *, create: bool = True) -> Iterator[MlflowClient]:
    """Give a client of the store; what MLflow raises inside becomes an ``IcisError``."""
    gc.freeze()  # SQLAlchemy's many objects set off collections: spare them what is loaded already
    try:
        file = _sqlite_file(uri)
        if file is None:
            yield MlflowClient(uri)
            return
        if not create and not file.exists():
            raise IcisError(f"there is no MLflow store {file}; 'icis track' makes one")
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            _initialise(file)
            # absolute, as MLflow keeps one engine a URI, whatever the working directory
            client = MlflowClient(f"sqlite:///{file}")
        yield client
    except MlflowException as error:
        raise IcisError(f"the MLflow store {public_uri(uri)} failed: {error.message}") from error
    finally:
        gc.unfreeze()


def _initialise(file: Path) -> None:
    """Make a store elsewhere and rename it: a half-made one would stay broken for good."""
    for left in file.parent.glob(f"{file.name}.*.tmp*"):
        left.unlink()
    if not file.exists():
        temporary = file.parent / f"{file.name}.{os.getpid()}.tmp"
        MlflowClient(f"sqlite:///{temporary}")
        temporary.replace(file)


def open_experiment(client: MlflowClient, uri: str, name: str) -> str:
    """Return the id of an experiment, made or restored where need be."""
    found = client.get_experiment_by_name(name)
    if found is None:
        location = None  # a server knows where its artifacts lie
        if not uri.startswith(("http", "databricks")):
            beside = (_sqlite_file(uri) or Path("mlflow.db").absolute()).parent
            location = (beside / "mlartifacts" / name).as_uri()
        return str(client.create_experiment(name, artifact_location=location))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def list_runs(client: MlflowClient, experiment: str, query: str = "") -> list[Run]:
    """List all runs, the newest first."""
    runs, token = [], None
    while True:
        page = client.search_runs([experiment], query, max_results=RUNS_A_PAGE, page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs


def delete_artifact(run: Run, path: str, uri: str) -> None:
    """Delete one artifact of a run."""
    get_artifact_repository(run.info.artifact_uri, tracking_uri=uri).delete_artifacts(path)


def encode(name: str) -> str:
    """Write what MLflow takes in no name, and the slash, as code points: ``a+b`` is ``a:2b:b``."""
    return re.sub(r"[^\w. -]", lambda found: f":{ord(found[0]):x}:", name)


def decode(name: str) -> str:
    """Return the name that ``encode`` was given."""
    return re.sub(r":([0-9a-f]+):", lambda found: chr(int(found[1], 16)), name)
