"""Injection methods: one module each, found here by name."""

from typing import Annotated

from pydantic import Field

from icis.methods.base import Injection, InjectionProblem, Method
from icis.methods.conse import Conse
from icis.methods.costa import Costa
from icis.methods.icis import Icis
from icis.methods.mlp import Mlp
from icis.methods.smo import Smo
from icis.methods.subreg import SubReg
from icis.methods.wavg import Wavg
from icis.methods.wdae import Wdae

AnyMethod = Annotated[
    Icis | Mlp | SubReg | Conse | Wdae | Costa | Smo | Wavg, Field(discriminator="method")
]
"""A method's configuration, told apart by its ``method``; a new method is added here."""

METHODS: dict[str, type[Method]] = {
    "icis": Icis,
    "mlp": Mlp,
    "subreg": SubReg,
    "conse": Conse,
    "wdae": Wdae,
    "costa": Costa,
    "smo": Smo,
    "wavg": Wavg,
}

__all__ = [
    "METHODS",
    "AnyMethod",
    "Conse",
    "Costa",
    "Icis",
    "Injection",
    "InjectionProblem",
    "Method",
    "Mlp",
    "Smo",
    "SubReg",
    "Wavg",
    "Wdae",
]
