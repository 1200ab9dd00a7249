"""What MLflow's pages of the registered model and of its versions say: how good, why in use or not, and where to look.

The text is Markdown, whose links and pictures name places of the server that shows it, wherever that lies. What people
write below the line that ends it stays theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from dlassets.lakehouse.tables import TEST, TRAIN, VALIDATION
from dlassets.registry.events import NOBODY_KNOWN, REPLACED, ROLLED_BACK, STANDING, Event, History
from dlassets.registry.lifecycle import CHALLENGER, CHAMPION, identified, registered_versions, run_or_none
from dlassets.registry.models import VALIDATED_VERSION, ModelVersion
from dlassets.registry.report import CALIBRATION, CONFUSION_MATRIX, EVALUATION, MISCLASSIFIED, TAG_WORSE
from dlassets.registry.tracking import TAG_INPUT
from dlassets.settings import UiSettings

if TYPE_CHECKING:
    from mlflow.entities import Run

    from dlassets.registry.model_registry import ModelRegistry

_END = "*dlassets writes this again when something changes, and leaves what stands below this line.*"
# All that a model's page said before it had such a text.
_FORMER = "Photos to classes: a linear head on a backbone."
_EXAMPLE = """```
import mlflow, pandas

model = mlflow.pyfunc.load_model("URI")
model.predict(pandas.DataFrame({"content": [open("photo.jpg", "rb").read()]}))
```"""
_PICTURES = (CONFUSION_MATRIX, MISCLASSIFIED, CALIBRATION)
# A picture of a run whose version's predictions people's answers have judged since, and tags of that run: what they say
# in a sentence, and what tells the picture from another. `labeling_report` makes them.
LABELLED = "labeling/what_people_say.png"
TAG_LABELLED, TAG_LABELLED_DIGEST = "dlassets.people_say", "dlassets.people_say_sha256"
_METRICS = {"macro F1": "test_macro_f1", "calibration error": "test_calibration_error"}
# What ended the reign of a version that was champion.
_ENDED = {REPLACED: "No longer champion", ROLLED_BACK: "Rolled back"}
# By the tag of the run that dagster-mlflow sets.
_DAGSTER_RUN = "dagster_run_id"


def describe(registry: ModelRegistry, history: History, *versions: int) -> None:
    """Bring the pages of the model and its versions up to what is known, after something happened to these versions.

    Written are those of these versions, of the last two champions, and of every version that has none; a text that
    would be the same is left.
    """
    client, model_name, ui = registry.client, registry.name, registry.settings.ui
    changed = {*versions, *(reign.model_version for reign in history.reigns[-2:])}
    for each in registered_versions(client, model_name):
        number = int(each.version)
        run = run_or_none(client, each.run_id) if number in changed or not each.description else None
        if run is not None:
            standing = _standing(history, history.known(identified(each)))
            text = _with_what_people_wrote(_of_version(run, standing, ui), each.description)
            if text != each.description:
                client.update_model_version(model_name, each.version, text)
    registered = client.get_registered_model(model_name)
    text = _with_what_people_wrote(_of_model(model_name, history, ui), registered.description)
    if text != registered.description:
        client.update_registered_model(model_name, text)


def _standing(history: History, model: ModelVersion) -> str:
    """Return where a version stands, and why: plain text, which lists of versions show."""
    last = history.last(model)
    if last is None:
        return "Not promoted."
    reign = next((reign for reign in reversed(history.reigns) if reign.model == model), None)
    if reign is None:
        return f"{STANDING[last.to_state].capitalize()}: {last.reason}."
    promoted = f"{_when(reign)}: {reign.reason}."
    if (end := history.end_of(reign)) is None:
        return f"Champion since {promoted}"
    ended = f"{_ENDED.get(end.event, 'Champion no more')} at {_when(end)}: {end.reason}."
    return f"{ended} It was promoted at {promoted}"


def _of_version(run: Run, standing: str, ui: UiSettings) -> str:
    figures = [f"- {name}: {value}" for name, value in _figures(run)]
    paths = [f"{EVALUATION}/{name}" for name in _PICTURES]
    if TAG_LABELLED_DIGEST in run.data.tags:
        paths.append(LABELLED)
    pictures = [f"![{path.rpartition('/')[2]}](get-artifact?{_artifact(run, path)})" for path in paths]
    return "\n\n".join([standing, "\n".join(figures), _links(run, ui), *pictures])


def _figures(run: Run) -> Iterator[tuple[str, str]]:
    """Yield what a run measured, and of what, as far as it did."""
    metrics, params, tags = run.data.metrics, run.data.params, run.data.tags
    if {"test_accuracy", "test_accuracy_low", "test_accuracy_high"} <= metrics.keys():
        accuracy, low, high = (metrics[f"test_accuracy{end}"] for end in ("", "_low", "_high"))
        rows = params.get(f"{TEST}_rows", "its")
        yield "accuracy", f"**{accuracy:.1%}** of {rows} test photos (95% interval: {low:.1%} to {high:.1%})"
    for name, metric in _METRICS.items():
        if metric in metrics:
            yield name, f"{metrics[metric]:.3f}"
    if TAG_WORSE in tags:
        yield "worse on", tags[TAG_WORSE]
    if TAG_LABELLED in tags:
        yield "by people's answers, on photos that it did not learn from", tags[TAG_LABELLED]
    yield "training", ", ".join(filter(None, [run.info.run_name, _rows(params)]))
    read = [f"{name.removeprefix(TAG_INPUT)} {read}" for name, read in tags.items() if name.startswith(TAG_INPUT)]
    if read:
        yield "made of the Delta versions", "; ".join(sorted(read))


def _rows(params: Mapping[str, str]) -> str:
    """Say how many photos were learned from, chosen by and tested on, where a run noted it."""
    rows = [f"{params[f'{split}_rows']} {split}" for split in (TRAIN, VALIDATION, TEST) if f"{split}_rows" in params]
    return f"split into {', '.join(rows)}" if rows else ""


def _links(run: Run, ui: UiSettings) -> str:
    links = {
        "the photos it had wrong": ui.page("wrong", run=run.info.run_id),
        "the run, with all its pictures and files": f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}",
        "its validation": f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts/validation",
        "its asset in Dagster": f"{ui.dagster}/assets/{VALIDATED_VERSION.name}",
    }
    if TAG_LABELLED_DIGEST in run.data.tags:
        links["what labelling bought"] = ui.page("labeling")
    if dagster_run := run.data.tags.get(_DAGSTER_RUN):
        links["the run in Dagster"] = f"{ui.dagster}/runs/{dagster_run}"
    return "Look at " + ", ".join(f"[{name}]({address})" for name, address in links.items()) + "."


def _of_model(model_name: str, history: History, ui: UiSettings) -> str:
    in_use = "No version is champion."
    if (champion := history.champion) is not None:
        link = f"[Version {champion.version}](#/models/{quote(model_name, safe='')}/versions/{champion.version})"
        in_use = f"{link} is **champion**{_standing(history, champion).partition('Champion')[2]}"
    aliases = (
        f"The alias `{CHAMPION}` is the version that scores; `{CHALLENGER}` did not do better, or is not judged yet."
    )
    asset = f"[Its asset in Dagster]({ui.dagster}/assets/{VALIDATED_VERSION.name})."
    gives = "Bytes of photos go in; label, name, confidence, margin and the likeliest classes come out:"
    example = _EXAMPLE.replace("URI", f"models:/{model_name}@{CHAMPION}")
    return "\n\n".join([_FORMER, in_use, f"{aliases} {asset}", gives, example])


def _artifact(run: Run, path: str) -> str:
    return urlencode({"path": path, "run_id": run.info.run_id})


def _when(event: Event) -> str:
    """Return when something was done, and who did it where that is known."""
    by = "" if event.actor == NOBODY_KNOWN else f", by {event.actor}"
    return f"{event.at:%Y-%m-%d %H:%M} UTC{by}"


def _with_what_people_wrote(text: str, before: str | None) -> str:
    """Return our text with what stands below our last one, or with all there was where that was none of ours."""
    below = (before or "").removeprefix(_FORMER).rpartition(_END)[2]
    return "\n\n".join(filter(None, [text, _END, below.strip()]))
