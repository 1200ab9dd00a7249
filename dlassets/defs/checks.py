"""Asset checks: one op a table, that runs every rule of `monitoring.quality` on it, and one for files on disk."""

from collections.abc import Iterator

import dagster as dg

from dlassets.lakehouse.tables import (
    CLASSES,
    DELETED_FILES,
    EVALUATED_ROWS,
    IMAGE_PROFILES,
    LABEL_REQUESTS,
    LABELED_IMAGES,
    LISTED_LABELS,
    RAW_IMAGES,
    TABLES,
    TRAINING_SET,
)
from dlassets.monitoring.quality import Finding, Rule, check, rules_of
from dlassets.pipeline.session import Session

# Photos that a check compares with their digests: some ten MB.
SAMPLE = 200


def table_checks(table: str) -> dg.AssetChecksDefinition:
    """Return the checks of a table, each a rule, in one op."""
    rules = rules_of(table)

    @dg.multi_asset_check(
        name=f"{table}_checks",
        specs=[_spec(rule) for rule in rules],
        required_resource_keys={"session"},
        can_subset=True,  # or the UI could run none of them by itself
    )
    def run_rules(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        session: Session = context.resources.session
        wanted = {key.name for key in context.selected_asset_check_keys}
        selected = [rule for rule in rules if rule.name in wanted]
        snapshots = {name: session.pin(TABLES[name]) for rule in selected for name in rule.reads}
        champion = session.required_champion() if any(rule.is_about_champion for rule in selected) else None
        for rule in selected:
            yield _result(check(session.engine, rule, snapshots, session.settings.labels, champion))

    return run_rules


def _spec(rule: Rule) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(rule.name, asset=rule.table, description=rule.description, blocking=rule.blocking)


def _result(finding: Finding) -> dg.AssetCheckResult:
    rule = finding.rule
    examples = [", ".join(f"{name}: {value}" for name, value in row.items()) for row in finding.examples]
    return dg.AssetCheckResult(
        asset_key=rule.table,
        check_name=rule.name,
        passed=finding.passed,
        severity=dg.AssetCheckSeverity.ERROR if rule.blocking else dg.AssetCheckSeverity.WARN,
        description=rule.description
        if finding.passed
        else f"{finding.broken} rows break it, such as {examples[0]}. {finding.remedy}".rstrip(),
        metadata={"broken": finding.broken, "examples": examples},
    )


@dg.asset_check(
    asset=LABEL_REQUESTS.name,
    name="photos_written",
    description="Every open request's photo lies where people look for it.",
    blocking=True,
)
def photos_written(session: dg.ResourceParam[Session]) -> dg.AssetCheckResult:
    from dlassets.labeling.requests import without_photo

    requests = session.pin(LABEL_REQUESTS)
    missing = sorted({id_ for each in session.labeling.read for id_ in without_photo(session.engine, each, requests)})
    return dg.AssetCheckResult(
        passed=not missing,
        metadata={"missing": len(missing), "examples": missing[:5]},
        description=f"{len(missing)} requests have no photo to look at" if missing else None,
    )


@dg.asset_check(
    asset=RAW_IMAGES.name,
    name="bytes_are_whole",
    description=f"{SAMPLE} photos of all, others each time, have the bytes that were taken in.",
)
def bytes_are_whole(session: dg.ResourceParam[Session]) -> dg.AssetCheckResult:
    from dlassets.intake.damage import damaged, paths_of

    photos = session.photos(session.pin(RAW_IMAGES))
    sample = paths_of(photos, some=SAMPLE)
    found = damaged(photos, sample)
    return dg.AssetCheckResult(
        passed=not found,
        metadata={"compared": len(sample), "damaged": len(found), "examples": found[:5]},
        description=f"{len(found)} of {len(sample)} photos are damaged, such as {found[0]}, and left out wherever "
        "photos are read. `dlassets verify --restore` finds all, and puts back what there still is of them."
        if found
        else None,
    )


@dg.asset_check(
    asset=CLASSES.name,
    name="folders_are_classes",
    description="No folder contradicts a class: a number has one name, and a name one number.",
)
def folders_are_classes(session: dg.ResourceParam[Session]) -> dg.AssetCheckResult:
    from dlassets.lakehouse.classes import problems_of_folders

    tables = {table.name: session.pin(table) for table in (RAW_IMAGES, DELETED_FILES, LISTED_LABELS, CLASSES)}
    problems = problems_of_folders(session.engine, tables, session.settings)
    return dg.AssetCheckResult(
        passed=not problems,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"folders": len(problems), "examples": problems[:5]},
        description=f"The photos of {len(problems)} folders have no label, such as {problems[0]}. Rename the folder, "
        "or the class by `dlassets classes rename`."
        if problems
        else None,
    )


@dg.asset_check(
    asset=LISTED_LABELS.name,
    name="lists_name_photos",
    description="Every entry of a list of labels says one class of one photo; photos that have not come are counted.",
)
def lists_name_photos(session: dg.ResourceParam[Session]) -> dg.AssetCheckResult:
    from dlassets.lakehouse.listed_labels import claims_of_lists

    tables = {table.name: session.pin(table) for table in (RAW_IMAGES, LISTED_LABELS)}
    claims = claims_of_lists(session.engine, tables, session.settings)
    wrong, away = claims.problems, claims.not_there
    none_is_there = claims.listed > 0 and len(away) == claims.listed
    said = f"{len(wrong)} entries give no photo a label, such as {wrong[0]}." if wrong else None
    if none_is_there:
        said = f"No photo that a list names is there, such as {away[0]}: is that how they are called in the zone?"
    return dg.AssetCheckResult(
        passed=not wrong and not none_is_there,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"entries": claims.listed, "problems": len(wrong), "examples": wrong[:5], "not_there": len(away)},
        description=said,
    )


@dg.asset_check(
    asset=LABELED_IMAGES.name,
    name="groups_never_straddle",
    description="Photos that look alike, or belong together by split.group_by, are on one side of the split.",
)
def groups_never_straddle(session: dg.ResourceParam[Session]) -> dg.AssetCheckResult:
    from dlassets.lakehouse.split_groups import straddling

    tables = {table.name: session.pin(table) for table in (RAW_IMAGES, IMAGE_PROFILES, LABELED_IMAGES)}
    found = straddling(session.engine, tables, session.settings.split)
    return dg.AssetCheckResult(
        passed=not found.groups,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"groups": found.groups, "photos": found.photos, "examples": found.examples},
        description=f"{found.photos} photos of {found.groups} groups are on two sides, such as {found.examples[0]}: "
        "figures of the test split are better than the model. They were there before it was known that they belong "
        "together, and no photo changes side."
        if found.groups
        else None,
    )


@dg.asset_check(
    asset=TRAINING_SET.name,
    name="test_photos_are_new",
    description="No photo of the test split looks, by its features, like one that is learned from.",
)
def test_photos_are_new(session: dg.ResourceParam[Session]) -> dg.AssetCheckResult:
    from dlassets.monitoring.leakage import COSINE, leaked

    found = leaked(session.pin(TRAINING_SET))
    return dg.AssetCheckResult(
        passed=not found.photos,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"compared": found.compared, "photos": found.photos, "cosine": COSINE, "examples": found.examples},
        description=f"{found.photos} of {found.compared} test photos look like one that is learned from, such as "
        f"{found.examples[0]}. Photos of one lot, shoot or camera are kept on one side by split.group_by."
        if found.photos
        else None,
    )


@dg.asset_check(
    asset=EVALUATED_ROWS.name,
    name="every_row_is_there",
    description="Every validation and test row of each training run is there, but for photos that could not be had.",
)
def every_row_is_there(session: dg.ResourceParam[Session]) -> dg.AssetCheckResult:
    from dlassets.registry.evaluated import evaluated_runs, lacking_rows

    runs = evaluated_runs(session.mlflow, session.lake)
    lacking = lacking_rows(session.engine, session.pin(EVALUATED_ROWS), runs)
    return dg.AssetCheckResult(
        passed=not lacking,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"runs": len(runs), "lacking": len(lacking), "examples": lacking[:5]},
        description=f"The rows of {len(lacking)} of {len(runs)} training runs are not all there, such as {lacking[0]}. "
        "Materialize `evaluated_rows`: its warnings say why a run's rows cannot be had."
        if lacking
        else None,
    )


CHECKS = [
    *(table_checks(table) for table in TABLES),
    photos_written,
    bytes_are_whole,
    folders_are_classes,
    lists_name_photos,
    groups_never_straddle,
    test_photos_are_new,
    every_row_is_there,
]
