"""The code of a registered model: MLflow runs this file whenever it loads one. Import it nowhere.

So nothing is pickled; the package travels along (``code_paths``), and this only ties the two.
"""

from __future__ import annotations

import warnings
from pathlib import Path

from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from icis.serving import Served

# MLflow would read a schema off type hints of ``predict``; the model has a signature of its own
warnings.filterwarnings("ignore", message=".*Add type hints to the `predict`")


class InjectedHead(PythonModel):  # type: ignore[misc]
    """A head whose rows for unseen classes were predicted from their descriptions."""

    def load_context(self, context: PythonModelContext) -> None:
        """Remember where the files lie; a backbone is loaded when the first image comes."""
        files = {name: Path(path) for name, path in context.artifacts.items()}
        self.served = Served(files["head"], files["about"], files.get("backbone"))

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Return class, score and scores of features or images: see ``Served.predict``."""
        return self.served.predict(model_input, **(params or {}))


set_model(InjectedHead())
