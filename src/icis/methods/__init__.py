"""Injection methods: one module each, found here by name."""

from typing import Annotated

from pydantic import Field

from icis.methods.base import Injection, InjectionProblem, Method
from icis.methods.conse import Conse
from icis.methods.icis import Icis
from icis.methods.mlp import Mlp

AnyMethod = Annotated[Icis | Mlp | Conse, Field(discriminator="method")]
"""A method's configuration, told apart by its ``method``; a new method is added here."""

METHODS: dict[str, type[Method]] = {"icis": Icis, "mlp": Mlp, "conse": Conse}

__all__ = [
    "METHODS",
    "AnyMethod",
    "Conse",
    "Icis",
    "Injection",
    "InjectionProblem",
    "Method",
    "Mlp",
]
