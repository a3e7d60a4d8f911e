"""Errors that a user can mend: printed as one message, without a traceback."""

FAILED = "failed"
"""The metric of a (cell, seed) that failed; it has no other."""


class IcisError(Exception):
    """A problem that the user can mend; its text says the value, what was expected, the fix."""


def reason_of(error: Exception) -> str:
    """Return an error's text, with its type where it is none that was meant for the user."""
    return str(error) if isinstance(error, IcisError) else f"{type(error).__name__}: {error}"


class ConfigError(IcisError):
    """An experiment file that cannot be run; lists every problem found."""

    def __init__(self, source: str, problems: list[str]) -> None:
        self.problems = problems
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"{source} cannot be run:\n{lines}")
