"""One file over HTTP into a ``.part`` beside its target: resumed, retried, whole or not at all."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import sleep, time
from typing import Any

import requests
from pydantic import TypeAdapter, ValidationError
from requests.exceptions import SSLError
from tenacity import RetryCallState, Retrying, retry_if_exception_type
from urllib3.exceptions import HTTPError, TimeoutError

from icis.artifacts import write_json
from icis.errors import IcisError
from icis.fetching.hashing import bar
from icis.fetching.space import require_space

CHUNK = 1 << 16
LONGEST_BACK_OFF = 60.0
LONGEST_CONNECT = 20.0
TRY_AGAIN = (408, 425, 429)


class OriginError(Exception):
    """An origin that does not give the file; its text says why."""


class WrongFileError(OriginError):
    """An origin that gives something, but not the file that was expected."""


class _TransientError(Exception):
    """A failure that may pass; ``wait`` is how many seconds the server asks for."""

    def __init__(self, text: str, wait: float = 0.0) -> None:
        self.wait = wait
        super().__init__(text)


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server, and how often to ask again."""

    timeout: float = 60.0
    """Seconds without a byte after which a server counts as stalled."""
    attempts: int = 6
    """Failures in a row, without a byte of progress between, after which an origin is given up."""
    wait: float = 1.0
    """Seconds before the second attempt; doubled with every further failure in a row."""
    longest_wait: float = 300.0
    """Seconds to wait at most where a server asks to be left alone for longer."""

    @classmethod
    def from_environment(cls) -> Patience:
        """Read ICIS_FETCH_TIMEOUT, ICIS_FETCH_ATTEMPTS and ICIS_FETCH_WAIT; all may be left out."""
        return cls(
            timeout=_number("ICIS_FETCH_TIMEOUT", cls.timeout, least=0.01),
            attempts=int(_number("ICIS_FETCH_ATTEMPTS", cls.attempts, least=1)),
            wait=_number("ICIS_FETCH_WAIT", cls.wait, least=0),
        )


def _number(variable: str, default: float, *, least: float) -> float:
    text = os.environ.get(variable, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = float("nan")
    if not least <= value < float("inf"):
        raise IcisError(f"{variable}={text}: expected a number from {least} on; or unset it")
    return value


VALIDATORS = TypeAdapter(dict[str, str])


@dataclass(frozen=True)
class Part:
    """The unfinished file beside its target, and a small JSON of where it comes from."""

    target: Path

    @property
    def path(self) -> Path:
        """Return the unfinished file."""
        return self.target.with_name(f"{self.target.name}.part")

    @property
    def state(self) -> Path:
        """Return the JSON with the keys url, etag and last-modified."""
        return self.target.with_name(f"{self.target.name}.part.json")

    @property
    def size(self) -> int:
        """Return the bytes that are there."""
        return self.path.stat().st_size if self.path.exists() else 0

    def begin(self, state: dict[str, str]) -> None:
        """Start over; the old bytes go first, lest they be taken for the new file's."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(b"")
        write_json(self.state, state)

    def read_state(self) -> dict[str, str]:
        """Return what ``begin`` wrote, nothing where that is missing or damaged."""
        try:
            return VALIDATORS.validate_json(self.state.read_bytes(), strict=True)
        except (OSError, ValidationError, json.JSONDecodeError):
            return {}

    def discard(self) -> None:
        """Delete it."""
        self.path.unlink(missing_ok=True)
        self.state.unlink(missing_ok=True)

    def finish(self) -> None:
        """Let it become the target, its bytes on the disk."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        self.path.replace(self.target)
        self.state.unlink(missing_ok=True)


class Transfer:
    """The transfer of one file from one address."""

    def __init__(
        self,
        url: str,
        part: Part,
        *,
        size: int | None,
        checked: bool,
        room: int | None,
        patience: Patience,
        progress: bool,
    ) -> None:
        """Describe it.

        ``size`` is what the file must have, in bytes; ``checked`` says that a checksum is known, so
        that joining halves of different files cannot go unnoticed; ``room`` are the bytes that will
        be needed on the disk beside the file itself, None for as many again.
        """
        self.url, self.part, self.size, self.checked = url, part, size, checked
        self.room, self.patience, self.progress = room, patience, progress
        self.resumed = False
        """Whether the part holds bytes of an earlier connection."""
        self._failures = 0
        self._reached = 0
        self._best = 0

    def run(self) -> None:
        """Fill the part; ``OriginError`` where that cannot be."""
        retrying = Retrying(
            retry=retry_if_exception_type(_TransientError),
            stop=lambda _: self._failures >= self.patience.attempts,
            wait=self._wait,
            sleep=sleep,
            reraise=True,
        )
        try:
            retrying(self._attempt)
        except _TransientError as error:
            raise OriginError(f"{error} (tried {self._failures} times in a row)") from error

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.wait if isinstance(error, _TransientError) else 0.0
        back_off = min(self.patience.wait * 2.0 ** (self._failures - 1), LONGEST_BACK_OFF)
        return max(back_off, min(asked, self.patience.longest_wait))

    def _attempt(self) -> None:
        try:
            self._request()
        except _TransientError:
            # a long file over a bad line may need many connections: only those that do not get
            # further than any before count
            self._failures = 1 if self._reached > self._best else self._failures + 1
            self._best = max(self._best, self._reached)
            raise

    def _request(self) -> None:
        offset, validator = self._start()
        if offset and offset == self.size:
            self.resumed = True
            return
        # a server must not pack the file a second time: it is stored as it comes
        headers = {"User-Agent": "icis", "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        if validator:
            headers["If-Range"] = validator
        timeout = (min(self.patience.timeout, LONGEST_CONNECT), self.patience.timeout)
        try:
            with requests.get(self.url, headers=headers, stream=True, timeout=timeout) as response:
                self._receive(response, offset)
        except SSLError as error:
            raise OriginError(f"no trusted connection: {error}") from error
        except (requests.Timeout, TimeoutError) as error:
            raise _TransientError(f"no data for {self.patience.timeout:g} s") from error
        except (requests.ConnectionError, HTTPError) as error:
            raise _TransientError(f"the connection failed: {error}") from error
        except requests.RequestException as error:
            raise OriginError(str(error)) from error

    def _start(self) -> tuple[int, str]:
        """Return the byte to go on from, and what tells whether the file is still the same."""
        state, size = self.part.read_state(), self.part.size
        validator = state.get("etag") or state.get("last-modified") or ""
        safe = validator or self.checked
        too_long = self.size is not None and size > self.size
        if state.get("url") != self.url or not safe or too_long:
            return 0, ""
        return size, validator if size else ""

    def _receive(self, response: requests.Response, offset: int) -> None:
        status = response.status_code
        said = f"answers {status} {response.reason or ''}".strip()
        if status in TRY_AGAIN or status >= 500:
            raise _TransientError(said, _retry_after(response))
        if status == 416 and offset:
            self._past_the_end(response, offset)
            return
        if status == 206 and offset:
            total = self._total_of_rest(response, offset)
        elif status == 200:
            offset, total = 0, _whole(response.headers.get("Content-Length"))
        else:
            raise OriginError(said)
        if "html" in response.headers.get("Content-Type", "") and "htm" not in self.part.path.name:
            raise OriginError("gives a web page, not the file")
        if None not in (self.size, total) and total != self.size:
            raise WrongFileError(f"offers {total} bytes, expected {self.size}")
        total = self.size if total is None else total
        room = (total or 0) if self.room is None else self.room
        what = f"fetching {self.part.target.name} (and unpacking it)"
        require_space(self.part.target.parent, (total or 0) - offset + room, what)
        if not offset:
            state = {"url": self.url, "last-modified": response.headers.get("Last-Modified", "")}
            self.part.begin({**state, "etag": _strong(response.headers.get("ETag", ""))})
        self.resumed = offset > 0
        self._stream(response, offset, total)

    def _past_the_end(self, response: requests.Response, offset: int) -> None:
        """Take the part for whole if it is as long as the file; start over otherwise."""
        total = _whole(response.headers.get("Content-Range", "").rpartition("/")[2])
        if total != offset:
            self.part.discard()
            raise _TransientError("the file became shorter than what was fetched before")
        self.resumed = True

    def _total_of_rest(self, response: requests.Response, offset: int) -> int | None:
        """Return the size of the whole file, of which the rest is being sent."""
        state, given = self.part.read_state(), response.headers.get("Content-Range", "")
        etag = _strong(response.headers.get("ETag", ""))
        changed = etag and state.get("etag") and etag != state["etag"]
        if changed or not given.startswith(f"bytes {offset}-"):
            self.part.discard()
            raise _TransientError("the file changed, or another part was sent than asked for")
        return _whole(given.rpartition("/")[2])

    def _stream(self, response: requests.Response, offset: int, total: int | None) -> None:
        raw: Any = response.raw
        self._reached = offset
        with (
            self.part.path.open("ab") as file,
            bar(self.part.target.name, total=total, done=offset, progress=self.progress) as shown,
        ):
            for chunk in raw.stream(CHUNK, decode_content=False):
                self._reached += len(chunk)
                if total is not None and self._reached > total:
                    raise WrongFileError(f"sends more than the {total} bytes that it should")
                file.write(chunk)
                shown.update(len(chunk))
        if total is not None and self._reached < total:
            raise _TransientError(f"ended after {self._reached} of {total} bytes")


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None


def _strong(etag: str) -> str:
    """Return an ETag that tells every byte, nothing for a weak one."""
    return "" if etag.startswith("W/") else etag


def _retry_after(response: requests.Response) -> float:
    """Return the seconds that a server asks to wait, 0 if it does not."""
    text = response.headers.get("Retry-After", "")
    if text.isdecimal():
        return float(text)
    with suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time())
    return 0.0
