"""What harms do to a lake, and ask of it. Each function runs in a process of its own."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from dlassets.engines.local import LocalEngine
from dlassets.errors import DlassetsError
from dlassets.intake.damage import damaged, paths_of, put_back
from dlassets.lakehouse.history import missing_files, restore_to
from dlassets.lakehouse.maintenance import maintain
from dlassets.lakehouse.model_versions import recorded_models
from dlassets.lakehouse.photos import Photos
from dlassets.lakehouse.snapshots import at_version, files_of, pin
from dlassets.lakehouse.tables import PREDICTIONS, RAW_IMAGES, TABLES, TRAINING_SET
from dlassets.monitoring.quality import check, rules_of
from dlassets.pipeline.session import Session
from dlassets.registry.lineage import needed_versions
from dlassets.registry.model_registry import load_version
from dlassets.settings import Settings
from dlassets.storage.lake import Lake
from dlassets_tests.flipping import flip_a_bit
from dlassets_tests.programs import invoke
from dlassets_tests.soak.story import settings_of
from dlassets_tests.tables import AT_ONCE

ENGINE = LocalEngine()


def doctor(root: Path) -> tuple[int, str]:
    said = invoke("doctor", DLASSETS_ROOT=str(root))
    return said.exit_code, said.output


def files_in_force(root: Path, table: str) -> list[str]:
    """Return the data files of a table's newest version, within the lake."""
    return [f"tables/{table}/{name}" for name in sorted(files_of(pin(Lake.at(str(root)), table)))]


def flip(root: Path, seed: int) -> list[str]:
    """Flip a bit of one to three photos in the table; return their paths, of those that are not noticed."""
    chance, lake = random.Random(seed), Lake.at(str(root))
    photos = _photos(root)
    paths = paths_of(photos)
    chosen = chance.sample(paths, min(len(paths), chance.randint(1, 3)))
    for path in chosen:
        for content in photos.bytes_of([path]).values():  # none where another of the same bytes was chosen before
            flip_a_bit(lake, content, chance.randrange(len(content)))
    return sorted({*chosen} - {*damaged(photos, paths)})


def put_all_back(root: Path) -> list[str]:
    """Put damaged photos back; return those that are damaged still."""
    photos = _photos(root)
    put_back(photos, settings_of(root), damaged(photos, paths_of(photos)), {"command": "verify --restore"})
    photos = _photos(root)
    return damaged(photos, paths_of(photos))


def _photos(root: Path) -> Photos:
    session = Session(settings_of(root))
    return session.photos(session.pin(RAW_IMAGES))


def restore_first(root: Path, copy: Path) -> bool:
    """Write the first version of `raw_images` with photos elsewhere; return whether it has the same rows."""
    then = at_version(pin(Lake.at(str(root)), "raw_images"), 1)
    assert then is not None
    restore_to(then, str(copy))
    there = at_version(pin(Lake.at(str(copy.parent.parent)), "raw_images"), 0)
    query = "SELECT path, image_id, length FROM raw_images ORDER BY path"
    tables = [ENGINE.sql(query, {"raw_images": each}).arrow() for each in (then, there) if each is not None]
    return len(tables) > 1 and tables[0].equals(tables[1])


def champion_files(root: Path) -> list[str]:
    """Return the files of the champion's package, within the lake; none where there is no champion."""
    mlflow = Session(settings_of(root)).mlflow
    if (champion := mlflow.champion()) is None:
        return []
    source = mlflow.client.get_model_version(champion.name, str(champion.version)).source
    model = mlflow.client.get_logged_model(source.removeprefix("models:/"))
    package = Path(model.artifact_location.removeprefix("file://"), "artifacts", "package")
    return sorted(str(path.relative_to(root)) for path in package.iterdir())


def champion_is_refused(root: Path) -> bool:
    session = Session(settings_of(root))
    champion = session.required_champion()
    try:
        load_version(session.registry, champion.version)
    except DlassetsError:
        return True
    return False


def care(root: Path, settings: Settings) -> None:
    """Delete all that may be deleted by these settings' registry; one that does not know the models stops it."""
    lake = Lake.at(str(root))
    try:
        needed = needed_versions(ENGINE, lake, Session(settings).mlflow.client)
    except DlassetsError:
        return
    for table in TABLES.values():
        maintain(ENGINE, lake, table, AT_ONCE, needed.get(table.name, ()))


def unreadable(root: Path) -> list[str]:
    """Return the versions of tables that registered models learned from and that cannot be read whole any more."""
    lake = Lake.at(str(root))
    needed = needed_versions(ENGINE, lake, Session(settings_of(root)).mlflow.client)
    recorded = {model.training_set_version for model in recorded_models(ENGINE, lake)}
    assert recorded <= needed.get(TRAINING_SET.name, set())
    pinned = {name: pin(lake, name) for name in needed}
    return [
        f"{name}@{version}"
        for name, versions in needed.items()
        for version in sorted(versions)
        if (then := at_version(pinned[name], version)) is None or missing_files(then)
    ]


def lose_registry(root: Path) -> None:
    """Delete MLflow's store and files, as a disk that is gone does."""
    shutil.rmtree(root / "mlflow")


def said_by_package(root: Path) -> dict[str, int]:
    """Return how many predictions there are by package."""
    query = "SELECT package, COUNT(*) AS rows FROM predictions GROUP BY package"
    rows = ENGINE.sql(query, {"predictions": pin(Lake.at(str(root)), "predictions")}).arrow().to_pylist()
    return {row["package"]: row["rows"] for row in rows}


def champion_package(root: Path) -> str | None:
    return Session(settings_of(root)).required_champion().package


def broken_rules(root: Path) -> dict[str, int]:
    """Return how many rows break each rule about predictions."""
    session = Session(settings_of(root))
    labels, champion = session.settings.labels, session.required_champion()
    tables = {name: session.pin(table) for name, table in TABLES.items()}
    return {r.name: check(ENGINE, r, tables, labels, champion).broken for r in rules_of(PREDICTIONS.name)}
