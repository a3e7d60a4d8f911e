"""Errors that a user can mend: printed as one message, without a traceback."""

FAILED = "failed"
"""The metric of a (cell, seed) that failed; it has no other."""


class IcisError(Exception):
    """A problem that the user can mend; its text says the value, what was expected, the fix."""


class ConfigError(IcisError):
    """An experiment file that cannot be run; lists every problem found."""

    def __init__(self, source: str, problems: list[str]) -> None:
        self.problems = problems
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"{source} cannot be run:\n{lines}")
