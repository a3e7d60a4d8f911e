"""Trainings that several cells of a place begin with: the first cell trains, the others read.

wDAE refines the predictions of an MLP that is a row of its own in another table, and so in another
job. Whoever comes first keeps what the training predicted; whoever finds nothing, or something made
of other things, trains.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from icis.errors import IcisError
from icis.heads import Head
from icis.methods import Injection, InjectionProblem, Method
from icis.methods.base import Progress
from icis.scorers import load_scorers, save_scorers


@dataclass(frozen=True)
class Training:
    """A method without rescaling, trained on a problem: where it is kept, and made of what."""

    method: Method
    problem: InjectionProblem
    seed: int
    path: Path
    key: str

    def fit(self, device: str, progress: Progress | None) -> Injection:
        """Return what ``method.fit`` returns, trained only if it is not there."""
        try:
            return self._read()
        except IcisError:  # absent, damaged or made of other things
            pass
        made = self.method.fit(self.problem, seed=self.seed, device=device, progress=progress)
        self._write(made)
        return made

    def _read(self) -> Injection:
        scorers, about = load_scorers(self.path)
        if about["key"] != self.key:
            raise IcisError(f"{self.path} was made of other things")
        known = scorers["known"]
        assert isinstance(known, Head)
        history = dict(about["history"])
        return Injection(scorers["joint"], history=history, seen_predictions=known.joined())

    def _write(self, made: Injection) -> None:
        assert made.seen_predictions is not None
        known = Head.from_joined(made.seen_predictions, self.problem.known_head.classes)
        scorers = {"joint": made.joint, "known": known}
        # as pairs: JSON's keys are sorted, and the terms have an order of their own
        history = [*made.history.items()]
        save_scorers(self.path, scorers, {"key": self.key, "history": history})
