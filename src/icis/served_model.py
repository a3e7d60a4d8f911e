"""The code of a registered model: MLflow runs this file whenever it loads one. Import it nowhere.

So nothing is pickled; the package travels along (``code_paths``), and this only ties the two.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from icis.serving import Served


class InjectedHead(PythonModel):  # type: ignore[misc]
    """A head whose rows for unseen classes were predicted from their descriptions."""

    def load_context(self, context: PythonModelContext) -> None:
        """Remember where the files lie; a backbone is loaded when the first image comes."""
        files = {name: Path(path) for name, path in context.artifacts.items()}
        self.served = Served(files["head"], files["about"], files.get("backbone"))

    # of all type hints this one alone is none from which MLflow would make a schema, or warn that
    # it can't; the model has a signature, and arrays are welcome too
    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Return class, score and scores of features or images: see ``Served.predict``."""
        return self.served.predict(model_input, **(params or {}))


set_model(InjectedHead())
