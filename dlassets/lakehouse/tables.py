"""Every table of the lake: its columns, key and partitions, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dlassets.engines.schema import Column, Table

TRAIN, VALIDATION, TEST = "train", "validation", "test"

# Where a label request stands, and SQL for those that are yet to be answered.
PLANNED, OPEN, ANSWERED, WITHDRAWN = "planned", "open", "answered", "withdrawn"
WAITING = f"status IN ('{PLANNED}', '{OPEN}')"
# What became of an answer.
ACCEPTED, REFUSED, SKIPPED, TAKEN_BACK = "accepted", "refused", "skipped", "taken_back"
# What the request of an answer about a photo that nobody was asked about is called: this, and the photo's image_id.
PHOTO = "photo "
# The service of answers that were put into the folder, in whose files many computers write their times.
FOLDER = "folder"
# The longest that a person may have taken for one answer, in seconds: more is no measurement, but a clock that was set.
LONGEST_SECONDS = 31 * 86_400
# Strategies of requests whose answers tell of something else than the others': of all photos that were scored and had
# no label, since chance chose among them; and of people, since what the photo shows was settled before.
AUDIT, HONEYPOT = "audit", "honeypot"

TOP_K = "array<struct<label:bigint,name:string,confidence:double>>"

PATH = Column(
    "path", "string", "Landing zone and path within it: the same on every engine and machine.", nullable=False
)
IMAGE_ID = Column("image_id", "string", "SHA-256 of the file's bytes, in hexadecimal.", nullable=False)
PACKAGE = Column("package", "string", "SHA-256 of the model's package; null of one that was made before it had one.")

RAW_IMAGES = Table(
    "raw_images",
    "One image file, with its bytes.",
    (
        PATH,
        Column("modificationTime", "timestamp", "When the file was last written.", nullable=False),
        Column("length", "bigint", "Size of the file, in bytes.", nullable=False),
        Column("content", "binary", "The file's bytes; null where `location` says that they are elsewhere."),
        IMAGE_ID,
        Column("landing", "string", "The landing zone it came through.", nullable=False),
        Column("folder", "string", "Name of its parent folder; empty at the zone's top."),
        Column("load_date", "date", "Day it was taken in (UTC).", nullable=False),
        Column("batch_id", "string", "The micro-batch that took it in.", nullable=False),
        Column("location", "string", "Where the bytes are if not in `content`: within the lake's root, or a URI."),
    ),
    key=("path",),
    partition_by=("load_date",),
    wide=True,
    row_group=256,
)

# What a camera may have written down, as columns of `raw_images` where the setting `ingest.capture` asks for them.
CAPTURE = (
    Column(
        "taken_at", "timestamp", "When the photo was taken, by its EXIF; its own clock's time where that has no zone."
    ),
    Column("camera", "string", "Maker and model of the camera, by its EXIF."),
    Column("latitude", "double", "Degrees north where the photo was taken, by its EXIF."),
    Column("longitude", "double", "Degrees east where the photo was taken, by its EXIF."),
)


def raw_images_with(capture: Sequence[str]) -> Table:
    """Return `raw_images` with those columns of CAPTURE that are named."""
    return replace(RAW_IMAGES, columns=(*RAW_IMAGES.columns, *(c for c in CAPTURE if c.name in capture)))


QUARANTINED_FILES = Table(
    "quarantined_files",
    "One file that is no usable image, or that a later step failed for, and why.",
    (
        PATH,
        Column("modificationTime", "timestamp", "When the file was last written.", nullable=False),
        Column("length", "bigint", "Size of the file, in bytes.", nullable=False),
        Column("landing", "string", "The landing zone it lies in.", nullable=False),
        Column("reason", "string", "One of a closed list of reasons.", nullable=False),
        Column("detail", "string", "What exactly was found."),
        Column("load_date", "date", "Day it was refused (UTC).", nullable=False),
        Column("batch_id", "string", "The micro-batch that refused it.", nullable=False),
        Column("dropped_at", "timestamp", "When a person decided that it is not wanted; null where nobody has."),
        Column("tries", "int", "How often it could not be read; null where the file itself is what is wrong."),
        Column("retry_at", "timestamp", "From when on ingest tries again to read it; null where it does not."),
        Column("image_id", "string", "SHA-256 of the file's bytes, in hexadecimal; null where there were none."),
        Column("stage", "string", "The table that a step failed to make of the photo; null of what was not taken in."),
        Column("code_version", "string", "Of dlassets whose step failed: that of another version tries again."),
    ),
    key=("path", "modificationTime", "length"),
)

DELETED_FILES = Table(
    "deleted_files",
    "One path that was taken in or refused and is gone from its landing zone.",
    (
        PATH,
        Column("landing", "string", "The landing zone it lay in.", nullable=False),
        Column("deleted_at", "timestamp", "When it was noticed that the file had gone.", nullable=False),
        Column("returned_at", "timestamp", "When a file was noticed under the path again; null while it is gone."),
    ),
    key=("path",),
)

IMAGE_PROFILES = Table(
    "image_profiles",
    "What one image looks like, for exploration.",
    (
        IMAGE_ID,
        Column("width", "int", "Pixels."),
        Column("height", "int", "Pixels."),
        Column("channels", "int", "Colour channels as stored."),
        Column("mode", "string", "Colour mode as stored, in Pillow's names."),
        Column("thumbnail", "binary", "A JPEG of at most 96 pixels a side."),
        Column("brightness", "double", "Mean luminance, 0 to 255."),
        Column("sharpness", "double", "Variance of the Laplacian of the luminance: low is blurred."),
        Column("perceptual_hash", "bigint", "64 bits that differ in few places where two photos look alike."),
    ),
    key=("image_id",),
)

HUMAN_LABELS = Table(
    "human_labels",
    "One answer that a person gave, accepted or refused.",
    (
        Column(
            "request_id",
            "string",
            "The label request it answers; `photo <image_id>` where it names a photo itself; of what could not be read "
            "at all, the file and the line.",
            nullable=False,
        ),
        Column("path", "string", "The image's path; null where the request is unknown."),
        Column("image_id", "string", "The image; null where the request is unknown."),
        Column("label", "bigint", "The class the person chose; null where it is not a class."),
        Column("annotator", "string", "Who answered."),
        Column("answered_at", "timestamp", "When, by the clock of whoever wrote that down.", nullable=False),
        Column(
            "status",
            "string",
            "accepted, refused, skipped, or taken_back: what that person answered to it before counts no more.",
            nullable=False,
        ),
        Column(
            "reason",
            "string",
            "Why it was refused, or is applied to nothing; of an accepted one, that it changes nothing.",
        ),
        Column("answer", "string", "The answer as it was given; null where nothing could be read."),
        Column("origin", "string", "Where it was read: for the folder service, the file and the line."),
        Column("read_at", "timestamp", "When it was read, by our clock."),
        Column("read_order", "bigint", "Its place in the order in which answers were read; the last one counts."),
        Column("service", "string", "Where it was given: folder, page, labelstudio, or the form of an imported file."),
        Column("seconds", "double", "How long the person took; null where nobody measured."),
    ),
    # An answer refused once (its class was not known yet) may be accepted later, so the status is part of the key.
    key=("request_id", "answered_at", "annotator", "answer", "status"),
)

CLASSES = Table(
    "classes",
    "One class: its number and its name, each given once.",
    (
        Column("label", "bigint", "Its number, which never changes.", nullable=False),
        Column("name", "string", "Its name; its number again where nobody has named it.", nullable=False),
        Column("aliases", "array<string>", "Names that it had before.", nullable=False),
        Column("since", "timestamp", "When it was named: of a folder, its oldest file's time.", nullable=False),
        Column("said_by", "string", "Who named it: a folder, or a person.", nullable=False),
        Column(
            "merged_into", "bigint", "The class that it is since a person merged it into that; null where it is one."
        ),
        Column("merged_at", "timestamp", "When that was."),
        Column("merged_by", "string", "Who did it."),
    ),
    key=("label",),
)

LISTED_LABELS = Table(
    "listed_labels",
    "What a list beside the photos says of one of them.",
    (
        Column("list_path", "string", "The list: its landing zone and its path in that.", nullable=False),
        Column("landing", "string", "The landing zone it lies in.", nullable=False),
        Column("photo", "string", "The photo as the list names it; else a place in the list.", nullable=False),
        Column("label", "bigint", "The class's number, where the list says one."),
        Column("label_name", "string", "Its name, where the list says one."),
        Column("problem", "string", "Why the list says no class of it; null where it does."),
        Column("said_at", "timestamp", "Since when it says so: the time of its file then.", nullable=False),
        Column("modificationTime", "timestamp", "When the list was last written.", nullable=False),
        Column("length", "bigint", "Size of the list, in bytes.", nullable=False),
        Column(
            "rule",
            "string",
            "The zone's photo_column, label_column and label_rule that it was read by.",
            nullable=False,
        ),
    ),
    key=("list_path", "photo"),
)

CONSENSUS = Table(
    "consensus",
    "What several people who were asked about one image say together.",
    (
        IMAGE_ID,
        Column("path", "string", "The image's path, as people were asked about it.", nullable=False),
        Column("label", "bigint", "The class that they agree on; null while it is disputed."),
        Column("label_name", "string", "That class's name."),
        Column("answers", "int", "How many people have answered.", nullable=False),
        Column("agreement", "double", "The share of them that gave the likeliest class.", nullable=False),
        Column("quality", "double", "How much that class is to be believed, 0 to 1.", nullable=False),
        Column(
            "disputed",
            "boolean",
            "Whether less than half gave it, or its quality is too low: then people say nothing of the image.",
            nullable=False,
        ),
        Column("annotators", "string", "Who gave the class that they agree on, with commas between them."),
        Column("said", "string", "What was said, and by whom.", nullable=False),
        Column("method", "string", "What the quality is by: crowdlab, or accuracy (of each person).", nullable=False),
        Column("decided_at", "timestamp", "When the newest of the answers was given.", nullable=False),
    ),
    key=("image_id",),
)

ANNOTATORS = Table(
    "annotators",
    "One person who answers: how much, how well, and how far with others.",
    (
        Column("annotator", "string", "What they call themselves; null for all who give no name."),
        Column("answers", "bigint", "Their answers that stand.", nullable=False),
        Column("skipped", "bigint", "How often they skipped a request.", nullable=False),
        Column("taken_back", "bigint", "How often they took an answer back.", nullable=False),
        Column(
            "honeypots", "bigint", "How many of their answers are to requests whose answer is known.", nullable=False
        ),
        Column("honeypots_right", "bigint", "How many of those are right.", nullable=False),
        Column("accuracy", "double", "The share that is; null without any."),
        Column("accuracy_low", "double", "The lower end of its interval at 95%."),
        Column("accuracy_high", "double", "The upper end."),
        Column("compared", "bigint", "How many images they answered for which there is a consensus.", nullable=False),
        Column("agreed", "bigint", "For how many of those they said what it says.", nullable=False),
        Column("agreement", "double", "The share of those; null without any."),
        Column("agreement_low", "double", "The lower end of its interval at 95%."),
        Column("agreement_high", "double", "The upper end."),
        Column("kappa", "double", "Cohen's kappa with others, a mean by common images; null without enough of them."),
        Column("kappa_images", "bigint", "How many common images that is by.", nullable=False),
        Column("median_seconds", "double", "How long an answer takes them; null where nobody measured."),
        Column("first_answer_at", "timestamp", "When they answered first; null where no answer stands."),
        Column("last_answer_at", "timestamp", "When they answered last."),
    ),
    key=("annotator",),
)

LABELED_IMAGES = Table(
    "labeled_images",
    "The label in force of one image.",
    (
        PATH,
        IMAGE_ID,
        Column("label", "bigint", "The class: see `classes`.", nullable=False),
        Column("label_name", "string", "The class's name."),
        Column("source", "string", "folder (or the path), list or human.", nullable=False),
        Column("annotator", "string", "Who answered, for a human label; all who agree, where several were asked."),
        Column("labeled_at", "timestamp", "When the label was given.", nullable=False),
        Column("split", "string", "train, validation or test: a function of split_group alone.", nullable=False),
        Column(
            "split_group",
            "string",
            "The image whose image_id decides the side of all that look alike; null in rows of old: its own.",
        ),
        Column("contradicts", "bigint", "The class that the folder or list says, where a person has said another."),
    ),
    key=("path",),
)

IMAGE_FEATURES = Table(
    "image_features",
    "The embedding of one image.",
    (
        IMAGE_ID,
        Column("feature_version", "string", "Backbone, weights and preprocessing that made it.", nullable=False),
        Column("features", "array<float>", "The embedding."),
    ),
    key=("image_id", "feature_version"),
    row_group=1024,
)

TRAINING_SET = Table(
    "training_set",
    "The exact rows a model learns from and is tested on.",
    (
        PATH,
        IMAGE_ID,
        Column("label", "bigint", "The class: see `classes`.", nullable=False),
        Column("label_name", "string", "The class's name."),
        Column("feature_version", "string", "What made the features.", nullable=False),
        Column("features", "array<float>", "The embedding; null where a model learns from pixels."),
        Column("split", "string", "train, validation or test.", nullable=False),
        Column("content", "binary", "The file's bytes, where a model learns from pixels; else null."),
    ),
    key=("image_id",),
    partition_by=("split",),
    row_group=128,
)

LABEL_ERRORS = Table(
    "label_errors",
    "One labelled image whose label looks wrong, by models that did not learn from it.",
    (
        PATH,
        IMAGE_ID,
        Column("label", "bigint", "The label it has.", nullable=False),
        Column("label_name", "string", "Its name."),
        Column("suggested_label", "bigint", "The label that it looks like.", nullable=False),
        Column("suggested_name", "string", "Its name."),
        Column("quality", "double", "How much the models believe in the label it has, 0 to 1.", nullable=False),
        Column("confidence", "double", "Probability they give to the suggested label.", nullable=False),
    ),
    key=("image_id",),
)

PREDICTIONS = Table(
    "predictions",
    "What one model version says of one image.",
    (
        PATH,
        IMAGE_ID,
        Column("model_name", "string", "The registered model.", nullable=False),
        Column("model_version", "bigint", "Its version.", nullable=False),
        PACKAGE,
        Column("predicted_label", "bigint", "The likeliest class.", nullable=False),
        Column("predicted_name", "string", "Its name."),
        Column("confidence", "double", "Probability of the likeliest class.", nullable=False),
        Column("margin", "double", "That minus the probability of the second.", nullable=False),
        Column("top_k", TOP_K, "The likeliest classes, best first."),
        Column("scored_at", "timestamp", "When.", nullable=False),
    ),
    key=("path", "model_name", "model_version", "package"),
)

PREDICTIONS_CURRENT = Table(
    "predictions_current",
    "What the champion says of one photo that is there, whether it has a label or not.",
    PREDICTIONS.columns,
    key=("path",),
)

SERVED_REQUESTS = Table(
    "served_requests",
    "What one model version answered to one photo of a request to `dlassets serve`.",
    (
        Column("request_id", "string", "The request; with /1, /2 … the photos of one of several.", nullable=False),
        Column("model_name", "string", "The registered model.", nullable=False),
        Column("model_version", "bigint", "Its version.", nullable=False),
        PACKAGE,
        Column("role", "string", "champion, whose answer was sent, or challenger.", nullable=False),
        Column("received_at", "timestamp", "When the request came.", nullable=False),
        Column("received_on", "date", "That day (UTC).", nullable=False),
        Column("form", "string", "How it was sent: raw, multipart, json, invocations, v2 or page.", nullable=False),
        IMAGE_ID,
        Column("content", "binary", "The photo's bytes, by serving.log_bytes, in the champion's row alone; else null."),
        Column("predicted_label", "bigint", "The likeliest class.", nullable=False),
        Column("predicted_name", "string", "Its name."),
        Column("confidence", "double", "Probability of the likeliest class.", nullable=False),
        Column("margin", "double", "That minus the probability of the second.", nullable=False),
        Column("top_k", TOP_K, "The likeliest classes, best first."),
        Column("seconds", "double", "From the request's end to the answer.", nullable=False),
    ),
    key=("request_id", "received_at", "model_name", "model_version"),  # a client may give one name to two requests
    partition_by=("received_on",),
    wide=True,
    row_group=256,
)

EVALUATED_ROWS = Table(
    "evaluated_rows",
    "What the model of one training run said of one row of validation or test.",
    (
        Column("run_id", "string", "MLflow's run of the training.", nullable=False),
        PATH,
        IMAGE_ID,
        Column("split", "string", "validation or test.", nullable=False),
        Column("label", "bigint", "The label that it had in the training set.", nullable=False),
        Column("label_name", "string", "That class's name."),
        Column("predicted_label", "bigint", "The likeliest class.", nullable=False),
        Column("predicted_name", "string", "Its name."),
        Column("confidence", "double", "Probability of the likeliest class, calibrated.", nullable=False),
        Column("evaluated_at", "timestamp", "When the run had been evaluated.", nullable=False),
    ),
    key=("run_id", "path"),
)

LABEL_REQUESTS = Table(
    "label_requests",
    "One image sent to people for its label.",
    (
        Column("request_id", "string", "A function of image and model version.", nullable=False),
        Column("batch_id", "string", "The batch it was sent in.", nullable=False),
        PATH,
        IMAGE_ID,
        Column("predicted_label", "bigint", "What the model thought.", nullable=False),
        Column("predicted_name", "string", "That class's name."),
        Column("confidence", "double", "How sure it was.", nullable=False),
        Column("strategy", "string", "Why this image was chosen.", nullable=False),
        Column("requested_at", "timestamp", "When.", nullable=False),
        Column(
            "status",
            "string",
            "planned (not sent yet), open, answered, or withdrawn: closed without an answer.",
            nullable=False,
        ),
        Column("service", "string", "The labelling services it went to, with commas between them.", nullable=False),
        Column("external_id", "string", "Each service's own name for it, likewise."),
        Column("reason", "string", "Why it was withdrawn; null where it was not."),
        Column("answers_wanted", "int", "How many people are to answer it; null: one."),
        Column("priority", "int", "Those of a higher one are asked first; null: 0."),
        Column(
            "known_label", "bigint", "Of a honeypot, the label that the image had when it was sent: the right answer."
        ),
        Column(
            "closed_at",
            "timestamp",
            "When it was found to be answered, or was withdrawn; null of one that waits, or was closed before that was "
            "written down.",
        ),
    ),
    key=("request_id",),
)

LABELING_REPORT = Table(
    "labeling_report",
    "One figure of what labelling bought, as it was known at the end of a day; the newest row of a measure stands.",
    (
        Column("measure_id", "string", "A function of figure, slice, model version and period.", nullable=False),
        Column("figure", "string", "What is measured: docs/labeling.md says how.", nullable=False),
        Column("slice", "string", "Of which part of it; empty: of all.", nullable=False),
        Column("model_name", "string", "The registered model; null of what is about people alone."),
        Column("model_version", "bigint", "Its version."),
        PACKAGE,
        Column("period_start", "date", "The first day (UTC) of its day or week; null: of all time."),
        Column("period_end", "date", "The day after the last one."),
        Column("value", "double", "The figure; null where there is none any more."),
        Column("low", "double", "The lower end of its interval at 95%; null where it has none."),
        Column("high", "double", "The upper end."),
        Column("count", "bigint", "Of how many photos, answers or requests it is.", nullable=False),
        Column("reported_on", "date", "The day (UTC) on which it was so.", nullable=False),
        Column("reported_at", "timestamp", "When it was last found to be so on that day.", nullable=False),
    ),
    key=("measure_id", "reported_on"),
)

# No asset: a line of it is written when a version is registered, whichever MLflow store is asked then.
MODEL_VERSIONS = Table(
    "model_versions",
    "One registered model version, and what it was made of.",
    (
        Column("model_name", "string", "The registered model.", nullable=False),
        Column("model_version", "bigint", "Its version.", nullable=False),
        Column("run_id", "string", "MLflow's run of it; empty where predictions alone tell of it.", nullable=False),
        PACKAGE,
        Column("training_set_version", "bigint", "The version of training_set that it learned from."),
        Column("forgotten_at", "timestamp", "When it was said that no MLflow store has it any more."),
    ),
    key=("model_name", "model_version", "run_id", "package"),
)

# No asset either: what people decide stands in it beside what steps do.
MODEL_EVENTS = Table(
    "model_events",
    "One thing that happened to a registered model version: who did it, when and why. Rows are only ever added.",
    (
        Column("event_id", "string", "SHA-256 of the other columns, shortened.", nullable=False),
        Column("number", "bigint", "Its place among the model's events, from 1.", nullable=False),
        Column("model_name", "string", "The registered model.", nullable=False),
        Column("model_version", "bigint", "Its version.", nullable=False),
        Column(
            "event",
            "string",
            "registered, validated, approval_wanted, approved, rejected, promoted, replaced, archived, rolled_back, "
            "moved_outside or put_back; challenger_set, challenger_taken_off or challenger_put_back by hand.",
            nullable=False,
        ),
        Column("from_state", "string", "Where the version stood before; null of one that was not known."),
        Column(
            "to_state",
            "string",
            "Where it stands since: challenger, validated, failed, waiting, approved, champion, archived, rejected or "
            "rolled_back.",
            nullable=False,
        ),
        Column("actor", "string", "Who did it: a person, a schedule or sensor.", nullable=False),
        Column("at", "timestamp", "When.", nullable=False),
        Column("reason", "string", "Why, in a sentence.", nullable=False),
        PACKAGE,
        Column("validation", "string", "SHA-256 of the validation that it was decided by."),
        Column("training_set_version", "bigint", "The version of training_set that the model learned from."),
        Column("run_id", "string", "Dagster's run that did it; empty outside of one.", nullable=False),
    ),
    key=("event_id",),
)

# Where an alert stands.
ALERT_WAITING, ALERT_SENT, ALERT_GIVEN_UP = "waiting", "sent", "given_up"

# No asset: the outbox of what people are told, written by whoever raises or sends an alert.
ALERTS = Table(
    "alerts",
    "One thing that people are told of, and whether they have been.",
    (
        Column("alert_id", "string", "A function of its kind and key.", nullable=False),
        Column("kind", "string", "What it is about: one of the setting alerts.kinds.", nullable=False),
        Column("subject", "string", "What happened, in a few words.", nullable=False),
        Column("body", "string", "The same with all that helps, and what to do.", nullable=False),
        Column("link", "string", "The page to look at."),
        Column("raised_at", "timestamp", "When it was noticed.", nullable=False),
        Column("key", "string", "What it is of its kind: a run, a check's failure, an event.", nullable=False),
        Column("status", "string", "waiting, sent, or given_up: tried as often as it may be.", nullable=False),
        Column("attempts", "int", "How often it was tried in vain to send it.", nullable=False),
        Column("retry_at", "timestamp", "From when on it is tried again; null before the first attempt."),
        Column("sent_at", "timestamp", "When it had been sent everywhere; null until then."),
        Column("sent_to", "array<string>", "The addresses, masked, that have taken it.", nullable=False),
        Column("problem", "string", "What was wrong with the others, the last time."),
    ),
    key=("alert_id",),
)

TABLES = {
    table.name: table
    for table in (
        RAW_IMAGES,
        QUARANTINED_FILES,
        DELETED_FILES,
        IMAGE_PROFILES,
        LISTED_LABELS,
        CLASSES,
        HUMAN_LABELS,
        CONSENSUS,
        ANNOTATORS,
        LABELED_IMAGES,
        IMAGE_FEATURES,
        TRAINING_SET,
        LABEL_ERRORS,
        EVALUATED_ROWS,
        PREDICTIONS,
        PREDICTIONS_CURRENT,
        SERVED_REQUESTS,
        LABEL_REQUESTS,
        LABELING_REPORT,
    )
}
# What is written beside the assets, by whoever has something to note, and cared for like them.
BOOKS = {table.name: table for table in (MODEL_VERSIONS, MODEL_EVENTS, ALERTS)}
