"""The registered model as MLflow loads it: a DataFrame with a binary column `content` in, one row of answers an image.

MLflow runs this file to make the model (models from code), so nothing is pickled.
"""

from pathlib import Path
from typing import Any

import mlflow  # noqa: TID253 - MLflow itself runs this file
import numpy as np
import pandas as pd  # noqa: TID253 - as above, and MLflow reads the annotation below

TOP_K = 5
COLUMNS = ["label", "name", "confidence", "margin", "top_k"]


class ImageClassifier(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Image bytes to label, name, confidence, margin and the likeliest classes."""

    def load_context(self, context: Any) -> None:
        from dlassets.errors import DlassetsError
        from dlassets.learning.backbones import feature_version
        from dlassets.learning.embedding import load_backbone
        from dlassets.registry.package import ModelPackage

        self.package = ModelPackage.load(Path(context.artifacts["package"]))
        found = feature_version(self.package.backbone)
        if found != self.package.feature_version:
            raise DlassetsError(
                f"The model reads features {self.package.feature_version}, and what is installed here makes {found}. "
                "Install the packages that its requirements name."
            )
        self.backbone = load_backbone(self.package.backbone)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002 - MLflow's signature
        from dlassets.registry.package import ranked

        features = self.backbone.embed_bytes(list(model_input["content"]))
        head = self.package.head
        return pd.DataFrame(ranked(head, head.probabilities(np.asarray(features)), TOP_K), columns=COLUMNS)


mlflow.models.set_model(ImageClassifier())
