"""`dlassets annotators`: who answers, how well, how far they agree, and how fast."""

from __future__ import annotations

from typing import Any

import click

from dlassets.cli.group import settings_and_lake, show

_NONE = "-"


@click.command()
def annotators() -> None:
    """Show who has answered: how much, how often right, how far they agree with others, how fast and when.

    Accuracy is by photos whose label is settled (labeling.honeypot_share), agreement by photos that several people were
    asked about (labeling.overlap_share), each with its interval at 95%. It is what has been read so far.
    """
    from dlassets.engines.local import LocalEngine
    from dlassets.labeling.annotators import known_of_people
    from dlassets.lakehouse.snapshots import pin

    _, lake = settings_and_lake()
    snapshots = {name: pin(lake, name) for name in ("human_labels", "label_requests", "classes", "consensus")}
    people, kappa = known_of_people(LocalEngine(), snapshots)
    if not people:
        click.echo("Nobody has answered yet.")
        return
    titles = (
        "annotator",
        "answers",
        "skipped",
        "taken back",
        "accuracy",
        "agreement",
        "kappa",
        "seconds",
        "first",
        "last",
    )
    show(titles, [_row(person) for person in people])
    if kappa is not None:
        click.echo(f"Of all, Fleiss' kappa is {kappa:.2f}.")


def _row(person: dict[str, Any]) -> tuple[str, ...]:
    return (
        person["annotator"] or "(no name)",
        f"{person['answers']:,}",
        f"{person['skipped']:,}",
        f"{person['taken_back']:,}",
        _share(person, "accuracy", "honeypots_right", "honeypots"),
        _share(person, "agreement", "agreed", "compared"),
        _NONE if person["kappa"] is None else f"{person['kappa']:.2f}",
        _NONE if person["median_seconds"] is None else f"{person['median_seconds']:.1f}",
        *(
            _NONE if person[name] is None else f"{person[name]:%Y-%m-%d %H:%M}"
            for name in ("first_answer_at", "last_answer_at")
        ),
    )


def _share(person: dict[str, Any], name: str, right: str, rows: str) -> str:
    if person[name] is None:
        return _NONE
    interval = f"{person[f'{name}_low']:.2f} to {person[f'{name}_high']:.2f}"
    return f"{person[name]:.2f} ({interval}), {person[right]} of {person[rows]}"
