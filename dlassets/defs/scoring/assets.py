"""What the champion says of every image without a label, or that people are to decide."""

import dagster as dg

from dlassets.defs.common import SCORING, provenance, table_result, table_spec
from dlassets.lakehouse.tables import IMAGE_FEATURES, LABELED_IMAGES, PREDICTIONS, RAW_IMAGES
from dlassets.resources.lake import LakeResource
from dlassets.resources.mlflow import MlflowResource
from dlassets.resources.progress import LoggedProgress

_SPEC = table_spec(PREDICTIONS, SCORING, reads=[RAW_IMAGES, LABELED_IMAGES, IMAGE_FEATURES])


@dg.multi_asset(specs=[_SPEC.merge_attributes(deps=["registered_version"])])
def predictions(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[LakeResource],
    mlflow: dg.ResourceParam[MlflowResource],
    progress: dg.ResourceParam[LoggedProgress],
) -> dg.MaterializeResult:
    from dlassets.registry.lifecycle import load_version
    from dlassets.scoring.batch import score_new, uncached_photos

    inputs = raw, labeled, features, done = lake.pin(
        RAW_IMAGES.name, LABELED_IMAGES.name, IMAGE_FEATURES.name, PREDICTIONS.name
    )
    name, version = mlflow.champion()
    origin = provenance(
        context, PREDICTIONS.name, inputs, model=f"{name}/{version}", parameters=lake.settings.labels.model_dump()
    )
    package = load_version(mlflow.client, name, version)
    report = progress.of(context, "images scored")
    written = score_new(
        lake.engine,
        raw,
        labeled,
        features,
        done,
        package,
        (name, version),
        lake.settings.scoring.top_k,
        lake.settings.labels,
        origin.as_dict(),
        report,
        uncached_photos(lake.engine, lake.lake, lake.settings, raw, package),
    )
    return table_result(lake, PREDICTIONS, written, origin, metadata={"model": name, "model_version": version})
