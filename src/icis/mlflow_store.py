"""The MLflow store: where it is, how it is opened, what it lists.

By default a SQLite file, made once under a lock: two processes that both find none would leave a
broken one. A server that does not answer costs seconds: it is asked once, briefly, before anything
else, and later calls are tried again only a few times.
"""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from filelock import FileLock

from icis.errors import IcisError, reason_of

os.environ.update(  # some are read by MLflow on import; what is set already stays
    {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # of single files, also into logs
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # two lines a run
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",  # seconds; by default 120, and 7 attempts
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
        **os.environ,
    }
)

from alembic.util.exc import CommandError
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from requests import RequestException
from sqlalchemy.exc import SQLAlchemyError

__all__ = [
    "Metric",
    "MlflowClient",
    "MlflowException",
    "Param",
    "Run",
    "RunTag",
    "StoreError",
    "decode",
    "delete_run",
    "delete_tag",
    "encode",
    "list_runs",
    "open_experiment",
    "open_store",
    "public_uri",
    "set_tags",
    "tracking_uri",
]

RUNS_A_PAGE = 500
ANSWERS_WITHIN = 5
"""Seconds that a server has to answer at all."""
FAULTS = (MlflowException, SQLAlchemyError, CommandError, RequestException, OSError, ValueError)
"""What MLflow raises where a store is unreachable, damaged, full or no MLflow store at all."""


class StoreError(IcisError):
    """The store cannot be reached or failed; nothing is wrong with what was to be logged."""


def tracking_uri() -> str:
    """Return ``MLFLOW_TRACKING_URI``, or a SQLite file in the working directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"


def public_uri(uri: str) -> str:
    """Return a URI without user, password and query."""
    bare = uri.partition("?")[0]
    return bare if bare.startswith("sqlite") else re.sub(r"//.*@", "//", bare)


def without_credentials(uri: str, text: str) -> str:
    """Return a text with the URI, where it stands in it, without user and password."""
    return re.sub(r"//[^/@\s]*@", "//", text.replace(uri, public_uri(uri)))


def _sqlite_file(uri: str) -> Path | None:
    if not uri.startswith("sqlite"):
        return None
    return Path(uri.partition("///")[2].partition("?")[0]).absolute()


@contextmanager
def open_store(uri: str, *, create: bool = True, alone: bool = False) -> Iterator[MlflowClient]:
    """Give a client of the store; what MLflow raises inside becomes a ``StoreError``.

    ``alone``: one process at a time in a SQLite file, which takes one writer at a time anyway and
    lets others wait for seconds only.
    """
    gc.freeze()  # SQLAlchemy's many objects set off collections: spare them what is loaded already
    try:
        file = _sqlite_file(uri)
        if file is None:
            _require_answer(uri)
            yield MlflowClient(uri)
            return
        if not create and not file.exists():
            raise IcisError(f"there is no MLflow store {file}; 'icis track' makes one")
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.writer.lock") if alone else nullcontext():
            with FileLock(f"{file}.lock"):
                _initialise(file)
                # absolute, as MLflow keeps one engine a URI, whatever the working directory
                client = MlflowClient(f"sqlite:///{file}")
            yield client
    except FAULTS as error:
        why = error.message if isinstance(error, MlflowException) else reason_of(error)
        why = without_credentials(uri, str(why)).strip().partition("\n")[0]  # then follows SQL
        raise StoreError(f"the MLflow store {public_uri(uri)} failed: {why}") from error
    finally:
        gc.unfreeze()


def _require_answer(uri: str) -> None:
    """Refuse a server that does not answer, whatever its answer, within seconds."""
    if not uri.startswith("http"):
        return
    try:
        http_request(
            get_default_host_creds(uri), "/health", "GET",
            max_retries=0, timeout=ANSWERS_WITHIN, raise_on_status=False,
        )  # fmt: skip
    except (MlflowException, RequestException) as error:
        raise StoreError(
            f"the MLflow server {public_uri(uri)} does not answer within {ANSWERS_WITHIN} seconds; "
            "start it, or mend MLFLOW_TRACKING_URI (unset: the file mlflow.db here)"
        ) from error


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
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException:  # another process made it meanwhile, or there is a real fault
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
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


def set_tags(client: MlflowClient, run: str, tags: dict[str, str]) -> None:
    """Set tags, also such as another process sets at the same moment.

    MLflow looks whether a tag is there and then inserts it: of two writers one fails. The second
    time it is there.
    """
    entries = [RunTag(key, value) for key, value in tags.items()]
    try:
        client.log_batch(run, tags=entries, synchronous=True)
    except MlflowException:
        client.log_batch(run, tags=entries, synchronous=True)


def delete_run(client: MlflowClient, run: str) -> None:
    """Delete a run, also one that another process, or a lost answer's call, deleted already."""
    try:
        client.delete_run(run)
    except MlflowException:
        if client.get_run(run).info.lifecycle_stage != "deleted":
            raise


def delete_tag(client: MlflowClient, run: str, key: str) -> None:
    """Delete a tag, also one that is gone already."""
    try:
        client.delete_tag(run, key)
    except MlflowException:
        if key in client.get_run(run).data.tags:
            raise


def encode(name: str) -> str:
    """Write what MLflow takes in no name, and the slash, as code points: ``a+b`` is ``a:2b:b``."""
    return re.sub(r"[^\w. -]", lambda found: f":{ord(found[0]):x}:", name)


def decode(name: str) -> str:
    """Return the name that ``encode`` was given."""
    return re.sub(r":([0-9a-f]+):", lambda found: chr(int(found[1], 16)), name)
