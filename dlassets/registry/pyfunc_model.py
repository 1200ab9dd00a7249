"""The registered model as MLflow loads it: a DataFrame with a binary column `content` in, one row of answers an image.

An image that does not decode costs its own answer: its row says why in `error`, and has nothing else.

MLflow runs this file to make the model (models from code), so nothing is pickled.
"""

from pathlib import Path
from typing import Any

import mlflow  # noqa: TID253 - MLflow itself runs this file
import numpy as np
import pandas as pd  # noqa: TID253 - as above, and MLflow reads the annotation below

TOP_K = 5
COLUMNS = ["label", "name", "confidence", "margin", "top_k", "error"]


class ImageClassifier(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Image bytes to label, name, confidence, margin and the likeliest classes, or to an error."""

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

        views = [self._view(content) for content in model_input["content"]]
        side, head = self.backbone.view.side, self.package.head
        images = np.array([view for view in views if not isinstance(view, str)], np.uint8).reshape(-1, side, side, 3)
        answers = iter(ranked(head, head.probabilities(self.backbone.embed(images)), TOP_K))
        # Nothing, and not the number that is none, which Spark cannot make a text of.
        rows = [{"error": view} if isinstance(view, str) else {**next(answers), "error": None} for view in views]
        frame = pd.DataFrame(rows, columns=COLUMNS)
        if len(images) < len(views):  # JSON has no number for one that is missing
            frame = frame.astype(object).where(frame.notna(), None)
        return frame

    def _view(self, content: bytes) -> Any:
        """Return an image's pixels as the backbone sees them; what is wrong with it where there are none."""
        from dlassets.images.decode import ImageError, as_seen

        try:
            return as_seen(content, self.backbone.view)
        except ImageError as error:
            return str(error)


mlflow.models.set_model(ImageClassifier())
