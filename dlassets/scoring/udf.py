"""A registered model as a function of Spark's columns: photos' bytes in, answers out."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dlassets.learning.backbones import BackboneRef, published
from dlassets.registry.models import ModelVersion
from dlassets.registry.package import ModelPackage
from dlassets.scoring.online import Network, Online, answer
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    import pandas as pd

_CANDIDATES = "array<struct<label:bigint,name:string,confidence:double>>"
RETURNS = f"label bigint, name string, confidence double, margin double, top_k {_CANDIDATES}, error string"
_COLUMNS = ("label", "name", "confidence", "margin", "top_k", "error")


def photo_udf(model: ModelVersion, package: ModelPackage, lake: Lake, top_k: int = 5) -> Any:
    """Return a pandas UDF of a column of image files: a struct of label, name, confidence, margin, top_k and error.

    The package travels with the function: workers ask no MLflow, and import no torch. Weights that no installed package
    has are kept in the lake, where workers find them. A photo that does not decode costs its own answer: `error` says
    why.
    """
    import pandas as pd
    from pyspark.sql.functions import pandas_udf  # type: ignore[attr-defined]  # chosen as it is imported

    package = replace(package, backbone=published(package.backbone, lake))

    def classify(content):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - said below, as types
        return answers_of(content, model, package, top_k)

    classify.__annotations__ = {"content": pd.Series, "return": pd.DataFrame}
    return pandas_udf(classify, RETURNS)


def answers_of(content: pd.Series, model: ModelVersion, package: ModelPackage, top_k: int) -> pd.DataFrame:
    """Return the answers to image files, as `photo_udf` gives them; they are what a worker computes."""
    import pandas as pd

    online = Online(model, package, _network(package.backbone), top_k)
    rows: list[Any] = []
    for file in content:
        (found,) = answer([online], [file or b""])
        rows.append(found[0] if isinstance(found, list) else {"error": str(found)})
    return pd.DataFrame(rows, columns=_COLUMNS).astype(object).where(lambda frame: frame.notna(), None)


@functools.cache
def _network(ref: BackboneRef) -> Network:
    """Return the one of this process: Spark's workers live from task to task."""
    return Network(ref)
