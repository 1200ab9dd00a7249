"""What starts a pipeline by itself: new files, new answers, the clock. Started or stopped by `automation` settings."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dagster as dg

from dlassets.defs.jobs import (
    INGEST_PIPELINE,
    LABELING_PIPELINE,
    SCORING_PIPELINE,
    TRAINING_PIPELINE,
    VALIDATION_PIPELINE,
)
from dlassets.errors import DlassetsError
from dlassets.lakehouse.tables import HUMAN_LABELS, LABELED_IMAGES, PREDICTIONS_CURRENT, RAW_IMAGES
from dlassets.masking import masked
from dlassets.pipeline.jobs import Job
from dlassets.pipeline.session import Session
from dlassets.registry.models import VALIDATED_VERSION
from dlassets.registry.store import existing_client
from dlassets.resources.asked_runs import Asked, ask
from dlassets.resources.dead_runs import end_dead_runs
from dlassets.settings import LandingZone, Settings
from dlassets.storage.hints import hint_in
from dlassets.storage.lake import Lake

# How often it is looked for a hint of a webhook's, where there may be any; Dagster's daemon looks no more often.
HINT_SECONDS = 5
# How often Dagster's daemon comes round to its sensors, at most: one that is to look more often does so while it lasts.
DAEMON_SECONDS = 5
# The check of what sensors ask for, on the first asset that a run makes of it.
DONE = "asked_for_is_done"


def landing_sensor(name: str, zone: LandingZone, settings: Settings) -> dg.SensorDefinition:
    """Return the sensor of a landing zone: labelled files are taken in, unlabelled ones scored as well.

    The run key names what was waiting, so a tick while the run is under way starts no second one. Files that come
    before a run has begun are that one's. A run that failed is asked for again, whether its files were taken in by then
    or not.
    """
    job, sensor = (INGEST_PIPELINE if zone.labelled else SCORING_PIPELINE), f"new_files_in_{name}"

    @_sensor(sensor, job, settings, f"Starts {job.name} when files wait in the landing zone {name}.")
    def new_files(context: dg.SensorEvaluationContext, session: dg.ResourceParam[Session]) -> dg.SensorResult:
        until = time.monotonic() + DAEMON_SECONDS
        result = look(context, session)
        while not result.run_requests and _may_look_again(context.instance, settings, until):
            time.sleep(settings.automation.sensor_seconds)
            result = look(context, session)
        return result

    def look(context: dg.SensorEvaluationContext, session: Session) -> dg.SensorResult:
        from dlassets.intake.handover import ZONE_TAG
        from dlassets.intake.waiting import waiting_files

        waiting = waiting_files(session.lake, settings, name)
        wanted = None if waiting.files == 0 else f"{name}:{waiting.digest}"
        asked = ask(context.instance, sensor, wanted, settings.automation.attempts)
        if asked.is_to_begin:
            waiting.hand_over()
        if asked.request is None:
            nothing = f"No new file in {masked(waiting.uri)}."
            return _not_asked(context, asked, RAW_IMAGES.name, nothing, context.cursor)
        key = asked.request.run_key
        tags = {"dlassets/waiting_files": "all are to be listed" if waiting.files is None else str(waiting.files)}
        if wanted is not None and waiting.is_listed:
            tags[ZONE_TAG] = name
            if key != context.cursor:  # else that run has it already, or has had it
                waiting.hand_over()
        return dg.SensorResult([dg.RunRequest(run_key=key, tags={**asked.request.tags, **tags})], cursor=key)

    return new_files


def _may_look_again(instance: dg.DagsterInstance, settings: Settings, until: float) -> bool:
    """Whether a sensor's next look is due before the daemon comes round; never where the other sensors wait for it."""
    is_due = time.monotonic() + settings.automation.sensor_seconds < until
    return is_due and bool(instance.get_sensor_settings().get("use_threads"))


def answers_sensor(settings: Settings) -> dg.SensorDefinition:
    """Return the sensor of the labelling services: new answers start the labelling pipeline, until they are taken in.

    A service that is away keeps no other's answers waiting: where these ask for nothing, the look fails and says why.
    It looks as often as the others do, and at once where a hint of Label Studio's was taken; what no hint came of is
    found all the same.
    """
    sensor, file = "new_answers", Lake.at(settings.root).answer_hints
    hints = settings.labeling.label_studio.hint_url is not None and "labelstudio" in settings.labeling.service

    @_sensor(
        sensor,
        LABELING_PIPELINE,
        settings,
        f"Starts {LABELING_PIPELINE.name} when people have answered.",
        hints=hints,
    )
    def new_answers(context: dg.SensorEvaluationContext, session: dg.ResourceParam[Session]) -> dg.SensorResult:
        seen = _seen(context.cursor)
        looked = {"looked_at": time.time(), "hint": hint_in(file) if hints else ""}
        if hints and not _is_due(looked, seen, settings):
            return dg.SensorResult(skip_reason="No hint has come since the last look, and the next one is not due.")
        before, now, has_answers, away = seen.get("answers", {}), {}, False, []
        for service in session.labeling.read:
            try:
                digest = service.answers_digest()
                # The run reads them: here it matters alone that there is one.
                is_new = digest != before.get(service.name, "")
                has_answers |= is_new and next(service.each_answer(), None) is not None
            except DlassetsError as error:
                away.append(error)
                digest = before.get(service.name, "")
            now[service.name] = digest
        seen = {**looked, "answers": now}
        wanted = f"answers:{'-'.join(filter(None, now.values()))}" if has_answers else None
        asked = ask(context.instance, sensor, wanted, settings.automation.attempts)
        if asked.request is None:
            if away and not asked.said:
                raise away[0]
            return _not_asked(context, asked, HUMAN_LABELS.name, "No new answer.", json.dumps(seen))
        return dg.SensorResult([asked.request], cursor=json.dumps(seen))

    return new_answers


def _seen(cursor: str | None) -> dict[str, Any]:
    """Return what a sensor saw at its last look; nothing where it gave up then."""
    try:
        return dict(json.loads(cursor or "{}"))
    except ValueError:
        return {}


def _is_due(now: Mapping[str, Any], seen: Mapping[str, Any], settings: Settings) -> bool:
    """Whether a look is due by the clock, or by a hint that has come since the last one."""
    since = now["looked_at"] - seen.get("looked_at", 0)
    return now["hint"] != seen.get("hint", "") or not 0 <= since < settings.automation.sensor_seconds - 1


def retraining_sensor(settings: Settings) -> dg.SensorDefinition:
    """Return the sensor of people's labels: so many that no model has learned from start the training pipeline."""
    sensor, enough = "enough_new_labels", settings.labeling.retrain_after

    @_sensor(
        sensor,
        TRAINING_PIPELINE,
        settings,
        f"Starts {TRAINING_PIPELINE.name} when people have given {enough:,} labels that no training set has.",
    )
    def enough_new_labels(context: dg.SensorEvaluationContext, session: dg.ResourceParam[Session]) -> dg.SensorResult:
        from dlassets.engines.local import LocalEngine
        from dlassets.labeling.retraining import READS, new_labels

        attempts = settings.automation.attempts
        tables = {table.name: session.pin(table) for table in READS}
        state = " ".join(str(snapshot.version) for snapshot in tables.values())
        asked = ask(context.instance, sensor, None, attempts)
        # While a training goes on, it is not known yet what it learns from.
        if asked.request is None and (context.cursor == state or (asked.said and not asked.is_given_up)):
            return _not_asked(context, asked, VALIDATED_VERSION.name, "No label is new.", context.cursor)
        if asked.request is None:
            number = new_labels(LocalEngine(), tables, settings.labels)
            if number < (enough or 0):
                said = f"{number:,} labels are new, of {enough:,} that a training is started for."
                return dg.SensorResult(skip_reason=said, cursor=state)
            asked = ask(context.instance, sensor, f"labels:{tables[LABELED_IMAGES.name].version}", attempts)
        if asked.request is None:
            return _not_asked(context, asked, VALIDATED_VERSION.name, "No label is new.", state)
        return dg.SensorResult([asked.request], cursor=state)

    return enough_new_labels


def champion_sensor(settings: Settings) -> dg.SensorDefinition:
    """Return the sensor of the champion: a new one scores the photos, and asks people about what it is unsure of."""
    sensor = "new_champion"

    @_sensor(sensor, SCORING_PIPELINE, settings, f"Starts {SCORING_PIPELINE.name} when another version is champion.")
    def new_champion(
        context: dg.SensorEvaluationContext, session: dg.ResourceParam[Session]
    ) -> dg.SensorResult | dg.SkipReason:
        from dlassets.lakehouse.snapshots import provenance_of

        if existing_client(settings) is None:
            return dg.SkipReason("There is no registry yet.")
        champion = session.champion()
        current = f"champion:{champion}:{(champion.package or '')[:8]}" if champion else ""
        is_new = champion and current != context.cursor
        has_scored = is_new and provenance_of(session.pin(PREDICTIONS_CURRENT)).get("model") == str(champion)
        asked = ask(
            context.instance, sensor, current if is_new and not has_scored else None, settings.automation.attempts
        )
        if asked.request is None:
            return _not_asked(context, asked, RAW_IMAGES.name, "The champion has scored the photos.", current)
        return dg.SensorResult([asked.request], cursor=current)

    return new_champion


def registry_sensor(settings: Settings) -> dg.SensorDefinition:
    """Return the sensor of the registry: a version that nobody has validated is, and aliases moved by hand are noticed.

    It looks as often as the others do, and at once where a webhook of MLflow's was taken: that is a hint, and what none
    came of is found all the same. Each version is a run of its own.
    """
    sensor, lake = "registry_changes", Lake.at(settings.root)
    hints = settings.serving.webhook_secret is not None

    @_sensor(
        sensor,
        VALIDATION_PIPELINE,
        settings,
        f"Starts {VALIDATION_PIPELINE.name} for versions without a validation, and notices aliases moved by hand.",
        hints=hints,
    )
    def registry_changes(
        context: dg.SensorEvaluationContext, session: dg.ResourceParam[Session]
    ) -> dg.SensorResult | dg.SkipReason:
        seen = json.loads(context.cursor or "{}")
        looked = {"looked_at": time.time(), "hint": hint_in(lake.registry_hints) if hints else ""}
        if not _is_due(looked, seen, settings):
            return dg.SkipReason("No webhook has come since the last look, and the next one is not due.")
        if existing_client(settings) is None:
            return dg.SkipReason("There is no registry yet.")
        from dlassets.engines.local import LocalEngine
        from dlassets.registry.model_registry import ModelRegistry
        from dlassets.registry.unvalidated import look

        registry = ModelRegistry(settings, LocalEngine(), session.mlflow, f"sensor {sensor}")
        found = look(registry, lambda run_id: _is_going_on(context.instance, run_id))
        attempts = settings.automation.attempts
        asked = {
            number: ask(context.instance, sensor, name, attempts, each_by_itself=True)
            for number, name in found.unvalidated.items()
        }
        return _asked_for_versions(asked, found.sentences, looked, seen.get("given_up"))

    return registry_changes


def _is_going_on(instance: dg.DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id) if run_id else None
    return run is not None and not run.is_finished


def _asked_for_versions(
    asked: Mapping[int, Asked], sentences: Sequence[str], seen: Mapping[str, Any], given_up_before: str | None
) -> dg.SensorResult:
    """Return the runs that are asked for, one a version; where any is given up, the asset's check fails, once."""
    from dlassets.registry.validation.validation import VERSION_TAG

    requests = [
        dg.RunRequest(run_key=each.request.run_key, tags={**each.request.tags, VERSION_TAG: str(number)})
        for number, each in asked.items()
        if each.request
    ]
    given_up = " ".join(each.said for each in asked.values() if each.is_given_up) or None
    events = [_failed_check(VALIDATED_VERSION.name, given_up)] if given_up and given_up != given_up_before else []
    said = " ".join([*sentences, *(each.said for each in asked.values() if each.said)])
    return dg.SensorResult(
        requests,
        skip_reason=None if requests else said or "Every version has a validation.",
        cursor=json.dumps({**seen, "given_up": given_up}),
        asset_events=events,
    )


def _not_asked(
    context: dg.SensorEvaluationContext, asked: Asked, asset: str, nothing: str, cursor: str | None
) -> dg.SensorResult:
    """Return why a sensor asks for no run; where it has given up, the asset's check fails, once."""
    if not asked.is_given_up:
        return dg.SensorResult(skip_reason=asked.said or nothing, cursor=cursor)
    events = [_failed_check(asset, asked.said)] if context.cursor != asked.said else []
    return dg.SensorResult(skip_reason=asked.said, cursor=asked.said, asset_events=events)


def _failed_check(asset: str, said: str) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        dg.AssetKey(asset), DONE, passed=False, severity=dg.AssetCheckSeverity.ERROR, description=said
    )


def _done_check(asset: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset,
        name=DONE,
        description="A sensor's runs have done what it asked for: fails where one has given up, until a run gets here.",
    )
    def done() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    return done


CHECKS = [_done_check(made.name) for made in (RAW_IMAGES, HUMAN_LABELS, VALIDATED_VERSION)]


def dead_runs_sensor(settings: Settings) -> dg.SensorDefinition:
    """Return the sensor that ends runs whose process was killed; it looks whatever the settings start by itself."""

    @dg.sensor(
        minimum_interval_seconds=settings.automation.sensor_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Ends runs whose process was killed on this machine: they would keep their pipeline waiting.",
    )
    def dead_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        return dg.SkipReason(" ".join(end_dead_runs(context.instance)) or "Every run that is going on has its process.")

    return dead_runs


def sensors(settings: Settings) -> list[dg.SensorDefinition]:
    found = [landing_sensor(name, zone, settings) for name, zone in settings.landing.items()]
    found += [answers_sensor(settings), registry_sensor(settings), champion_sensor(settings)]
    if settings.labeling.retrain_after is not None:
        found.append(retraining_sensor(settings))
    return [*found, dead_runs_sensor(settings)]


def _sensor(
    name: str, job: Job, settings: Settings, description: str, *, hints: bool = False
) -> Callable[..., dg.SensorDefinition]:
    """Return the decorator of a sensor that looks as often as the settings say, and from the beginning if they do.

    One that may get `hints` comes round for these more often.
    """
    automation = settings.automation
    seconds = automation.sensor_seconds
    return dg.sensor(
        name=name,
        job_name=job.name,
        minimum_interval_seconds=min(HINT_SECONDS, seconds) if hints else seconds,
        default_status=dg.DefaultSensorStatus.RUNNING if automation.sensors else dg.DefaultSensorStatus.STOPPED,
        description=description,
    )
