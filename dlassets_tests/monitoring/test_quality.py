"""Every rule finds what breaks it, and is quiet about tables that are as they should be."""

import datetime as dt
from typing import Any, Literal, get_args

import pytest

from dlassets.engines.base import Engine
from dlassets.lakehouse.snapshots import pin
from dlassets.lakehouse.tables import TABLES
from dlassets.monitoring.quality import RULES, Rule, check, rules_of
from dlassets.registry.models import ModelVersion
from dlassets.settings import LabelSettings
from dlassets.storage.lake import Lake
from dlassets_tests.tables import NOON, image_id, put

A, B, C = image_id("a"), image_id("b"), image_id("c")
Row = dict[str, Any]
Conflicts = Literal["drop", "first", "ask"]

IMAGE = {"path": "labeled/a.jpg", "image_id": A, "length": 9, "batch_id": "labeled-000001"}
LABEL = {"path": "labeled/a.jpg", "image_id": A, "label": 3, "split": "train"}
COPY = {**LABEL, "path": "labeled/copy.jpg"}
OTHER = {**LABEL, "path": "labeled/c.jpg", "image_id": C}
ANSWER = {"request_id": "r", "image_id": B, "label": 3, "annotator": "me", "answer": "3", "status": "accepted"}
CHAMPION = ModelVersion("m", 2, "p" * 64)
PREDICTION = {
    **CHAMPION.row.to_pylist()[0],
    "path": "unlabeled/b.jpg",
    "image_id": B,
    "confidence": 0.9,
    "margin": 0.8,
}
SERVED = {**CHAMPION.row.to_pylist()[0], "request_id": "q", "image_id": A, "role": "champion", "confidence": 0.9}
NEXT_DAY = NOON.date() + dt.timedelta(days=1)
LATER = NOON + dt.timedelta(seconds=1)
EVALUATED = {"run_id": "r", "path": "labeled/a.jpg", "image_id": A, "split": "test", "confidence": 0.5}
ERROR = {"image_id": A, "label": 3, "suggested_label": 40, "quality": 0.1, "confidence": 0.8}
REQUEST = {"request_id": "r", "image_id": B, "status": "open"}
STATUSES = ("planned", "open", "answered", "withdrawn")
TOGETHER = {"image_id": A, "path": "labeled/a.jpg", "answers": 2, "label": 3}
PERSON = {"annotator": "me", "answers": 8, "honeypots": 2, "honeypots_right": 1, "compared": 3, "agreed": 3}
REFUSED = {"path": "labeled/x.jpg", "batch_id": "labeled-000002"}
CLEAN: dict[str, list[Row]] = {
    "raw_images": [
        IMAGE,
        {"path": "unlabeled/b.jpg", "image_id": B, "length": 9},
        {"path": "labeled/c.jpg", "image_id": C, "length": 9},
    ],
    # Dropped by a person, replaced by a usable file, and gone.
    "quarantined_files": [
        {**REFUSED, "dropped_at": NOON},
        {**REFUSED, "path": "labeled/a.jpg", "batch_id": "labeled-000000"},
        {**REFUSED, "path": "labeled/gone.jpg"},
    ],
    "deleted_files": [{"path": "labeled/gone.jpg"}],
    "image_profiles": [{"image_id": A}, {"image_id": B}, {"image_id": C}],
    "listed_labels": [{"list_path": "labeled/labels.csv", "photo": "a.jpg"}],
    "classes": [{"label": 3}, {"label": 40}, {"label": 41, "merged_into": 40}],
    "human_labels": [
        ANSWER,
        {**ANSWER, "answer": "4", "status": "refused", "reason": "because", "read_order": -1},
        {**ANSWER, "answer": None, "label": None, "status": "skipped", "reason": "because", "seconds": 2.5},
        *({**ANSWER, "request_id": name, "annotator": None} for name in "tu"),
    ],
    "consensus": [TOGETHER, {**TOGETHER, "image_id": B, "label": None, "disputed": True}],
    "annotators": [PERSON, {**PERSON, "annotator": None}],
    "labeled_images": [LABEL, COPY, OTHER],
    "image_features": [{"image_id": each, "feature_version": "1"} for each in (A, B, C)],
    "training_set": [{**each, "feature_version": "1"} for each in (LABEL, OTHER)],
    "label_errors": [ERROR],
    "predictions": [PREDICTION, {**PREDICTION, "model_version": 1}, {**PREDICTION, "package": "q" * 64}],
    "predictions_current": [PREDICTION],
    "served_requests": [SERVED, {**SERVED, "role": "challenger", "model_version": 1}, {**SERVED, "received_at": LATER}],
    "evaluated_rows": [EVALUATED, {**EVALUATED, "path": "labeled/c.jpg", "split": "validation"}],
    "label_requests": [REQUEST, {**REQUEST, "request_id": "s", "status": "answered"}],
    "labeling_report": [{"measure_id": "m", "figure": "queue", "reported_on": day} for day in (NOON.date(), NEXT_DAY)],
}

# What breaks each rule: rows in place of its table's clean ones, and how many rows the rule then finds.
BREAKING: list[tuple[str, str, list[Row], int]] = [
    *(
        (table.name, f"unique_{'_and_'.join(table.key)}", [*CLEAN[table.name], CLEAN[table.name][0]], 1)
        for table in TABLES.values()
        if CLEAN[table.name]
    ),
    ("raw_images", "image_ids_are_hashes", [{**IMAGE, "image_id": A.upper()}, {**IMAGE, "image_id": "a"}], 2),
    ("raw_images", "no_empty_image", [{**IMAGE, "length": 0}], 1),
    ("quarantined_files", "nothing_quarantined", [REFUSED], 1),
    ("image_profiles", "every_image_profiled", [{"image_id": A}, {"image_id": C}], 1),
    *(
        ("human_labels", "every_answer_is_decided", [{**ANSWER, **change}], 1)
        for change in ({"status": "perhaps"}, {"label": None}, {"image_id": None}, {"status": "refused"})
    ),
    ("human_labels", "every_answer_took_a_time", [{**ANSWER, "seconds": -1.0}, {**ANSWER, "seconds": 1e9}], 2),
    (
        "classes",
        "merged_into_a_class",
        [{"label": 3, "merged_into": 9}, {"label": 4, "merged_into": 5}, {"label": 5, "merged_into": 6}, {"label": 6}],
        2,
    ),
    ("labeled_images", "no_label_of_a_merged_class", [{**LABEL, "label": 41}], 1),
    ("human_labels", "nothing_refused", [{**ANSWER, "status": "refused", "reason": "because"}], 1),
    ("consensus", "nothing_disputed", [{**TOGETHER, "image_id": C, "label": None, "disputed": True}], 1),
    *(
        ("consensus", "every_consensus_is_of_several", [{**TOGETHER, **change}], 1)
        for change in ({"answers": 1}, {"label": None}, {"disputed": True}, {"quality": 1.1}, {"agreement": -0.1})
    ),
    *(
        ("annotators", "shares_are_of_what_was_answered", [{**PERSON, **change}], 1)
        for change in ({"honeypots": 9}, {"honeypots_right": 3}, {"agreed": 4})
    ),
    ("labeled_images", "exactly_one_split", [{**LABEL, "split": "both"}], 1),
    ("labeled_images", "equal_bytes_never_straddle", [LABEL, {**COPY, "split": "test"}], 1),
    (
        "labeled_images",
        "no_group_outweighs_the_split",
        [{**LABEL, "path": f"labeled/{number}.jpg", "split_group": A if number < 101 else B} for number in range(180)],
        1,
    ),
    ("labeled_images", "equal_bytes_have_one_label", [LABEL, {**COPY, "label": 4}], 1),
    ("image_features", "every_image_embedded", [{"image_id": each, "feature_version": "1"} for each in (B, C)], 1),
    *(
        ("training_set", "every_class_can_be_learned", [{**each, "feature_version": "1"} for each in rows], 1)
        for rows in ([], [LABEL], [LABEL, {**OTHER, "split": "test"}])
    ),
    ("training_set", "one_backbone", [{**LABEL, "feature_version": version} for version in "12"], 1),
    *(
        ("training_set", "labels_as_in_force", [{**LABEL, **change, "feature_version": "1"}], 1)
        for change in ({"label": 4}, {"split": "test"}, {"image_id": B}, {"path": "labeled/gone.jpg"})
    ),
    *(
        ("predictions", "every_unlabelled_image_scored", rows, 1)
        for rows in ([], [{**PREDICTION, "model_version": 1}], [{**PREDICTION, "image_id": A}])
    ),
    *(
        ("label_errors", "suggests_another_label", [{**ERROR, **change}], 1)
        for change in ({"suggested_label": 3}, {"quality": -0.1}, {"confidence": 1.1})
    ),
    *(
        ("predictions", "confidence_is_a_probability", [{**PREDICTION, name: value}], 1)
        for name in ("confidence", "margin")
        for value in (-0.1, 1.1, float("nan"))
    ),
    (
        "predictions",
        "predictions_are_of_current_bytes",
        [{**PREDICTION, "model_version": version, "image_id": A} for version in (1, 2)],
        1,
    ),
    *(
        ("predictions_current", "is_what_the_champion_says", rows, count)
        for rows, count in (
            ([], 1),
            ([{**PREDICTION, "image_id": A}], 1),
            ([{**PREDICTION, "package": None}], 1),
            ([PREDICTION, {**PREDICTION, "path": "labeled/gone.jpg"}], 1),
        )
    ),
    *(
        ("evaluated_rows", "evaluated_on_what_was_held_back", [{**EVALUATED, **change}], 1)
        for change in ({"split": "train"}, {"confidence": 1.1}, {"confidence": float("nan")})
    ),
    (
        "label_requests",
        "requests_are_about_current_images",
        [{"request_id": status, "status": status, "image_id": "c" * 64} for status in STATUSES],
        2,
    ),
    (
        "label_requests",
        "several_have_names",
        [{**REQUEST, "request_id": name, "answers_wanted": wanted} for name, wanted in (("t", 2), ("u", 1), ("r", 2))],
        1,
    ),
    ("label_requests", "one_open_request_an_image", [REQUEST, {**REQUEST, "request_id": "s"}], 1),
]


def rule_named(table: str, name: str) -> Rule:
    return next(rule for rule in rules_of(table) if rule.name == name)


def broken(engine: Engine, lake: Lake, rule: Rule, tables: dict[str, list[Row]], conflicts: Conflicts = "drop"):
    # Written by the embedded engine whichever runs the rule: both read the same tables.
    for name in rule.reads:
        if tables.get(name):
            put(lake, name, *tables[name])
    snapshots = {name: pin(lake, name) for name in rule.reads}
    return check(engine, rule, snapshots, LabelSettings(conflicts=conflicts), CHAMPION)


@pytest.mark.parametrize(
    ("table", "name", "rows", "count"), BREAKING, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_rule_finds_the_rows_that_break_it(engine, lake, table, name, rows, count) -> None:
    finding = broken(engine, lake, rule_named(table, name), CLEAN | {table: rows})

    assert (finding.broken, finding.passed) == (count, False)
    assert len(finding.examples) == count


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.table}-{rule.name}")
def test_clean_tables_pass(local_engine, lake, rule) -> None:
    finding = broken(local_engine, lake, rule, CLEAN)

    assert (finding.broken, finding.passed, finding.examples) == (0, True, [])


def test_every_rule_is_tried() -> None:
    assert {(table, name) for table, name, _, _ in BREAKING} == {(rule.table, rule.name) for rule in RULES}


def test_empty_tables_break_nothing(local_engine, lake) -> None:
    for rule in RULES:
        assert broken(local_engine, lake, rule, {name: [] for name in TABLES}).passed, rule.name


def test_a_few_examples_are_shown_of_many(local_engine, lake) -> None:
    rows = [{"path": f"labeled/{place}.jpg"} for place in range(12)]
    rule = rule_named("quarantined_files", "nothing_quarantined")

    finding = broken(local_engine, lake, rule, {"quarantined_files": rows})

    assert (finding.broken, len(finding.examples)) == (12, 5)
    assert set(finding.examples[0]) == {"path", "reason", "detail"}


CONFLICT = [OTHER, LABEL, {**COPY, "label": 4, "labeled_at": NOON - dt.timedelta(hours=1)}]
AS_SETTINGS_SAY: list[tuple[str, str, Conflicts, list[Row], int]] = [
    *(("training_set", "labels_as_in_force", conflicts, CLEAN["training_set"], 1) for conflicts in get_args(Conflicts)),
    ("training_set", "labels_as_in_force", "first", [{**LABEL, "label": 4, "feature_version": "1"}], 0),
    ("predictions", "every_unlabelled_image_scored", "drop", CLEAN["predictions"], 0),
    ("predictions", "every_unlabelled_image_scored", "ask", CLEAN["predictions"], 1),
    ("predictions", "every_unlabelled_image_scored", "ask", [PREDICTION, {**PREDICTION, **IMAGE}], 0),
]


@pytest.mark.parametrize(("table", "name", "conflicts", "rows", "count"), AS_SETTINGS_SAY)
def test_rules_about_labels_follow_the_setting(local_engine, lake, table, name, conflicts, rows, count) -> None:
    tables = {**CLEAN, "labeled_images": CONFLICT, table: rows}

    assert broken(local_engine, lake, rule_named(table, name), tables, conflicts).broken == count


@pytest.mark.parametrize("conflicts", get_args(Conflicts))
def test_what_becomes_of_a_conflict_is_said_as_the_setting_has_it(local_engine, lake, conflicts) -> None:
    rule = rule_named("labeled_images", "equal_bytes_have_one_label")

    finding = broken(local_engine, lake, rule, {**CLEAN, "labeled_images": CONFLICT}, conflicts)

    said = {"drop": "leaves these images out.", "first": "the oldest file counts", "ask": "people are asked"}
    assert finding.remedy.startswith(f"By labels.conflicts={conflicts}, ")
    assert said[conflicts] in finding.remedy


def test_bytes_that_are_no_longer_to_be_had_are_not_asked_for(local_engine, lake) -> None:
    lost = {**IMAGE, "location": "landing/labeled/gone.jpg", "path": "labeled/gone.jpg", "image_id": "c" * 64}
    tables = {**CLEAN, "raw_images": [*CLEAN["raw_images"], lost]}

    for table, name in (
        ("image_profiles", "every_image_profiled"),
        ("image_features", "every_image_embedded"),
        ("predictions", "every_unlabelled_image_scored"),
    ):
        lake_of_its_own = Lake.at(f"{lake.root}/{name}")
        assert broken(local_engine, lake_of_its_own, rule_named(table, name), tables).passed, name


def test_a_conflict_names_a_path_of_each_label_and_how_many_there_are(local_engine, lake) -> None:
    rule = rule_named("labeled_images", "equal_bytes_have_one_label")
    said = {"labeled/1.jpg": 3, "labeled/2.jpg": 4, "labeled/3.jpg": 3}
    rows = [{**LABEL, "path": path, "label": label} for path, label in said.items()]

    finding = broken(local_engine, lake, rule, {**CLEAN, "labeled_images": [*rows, OTHER]})

    paths = {"one_path": "labeled/1.jpg", "one": 3, "other_path": "labeled/2.jpg", "other": 4, "paths": 3}
    assert finding.examples == [{"image_id": A, **paths}]
