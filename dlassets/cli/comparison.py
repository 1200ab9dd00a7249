"""`dlassets compare`: how two versions of the model differ, and who was right."""

from __future__ import annotations

import click

from dlassets.cli.group import settings_and_lake, show


@click.command()
@click.argument("a", type=click.IntRange(min=1))
@click.argument("b", type=click.IntRange(min=1))
def compare(a: int, b: int) -> None:
    """Say how versions A and B of the model differ on photos that both answered about, and who was right.

    What judges them is the test photos, and what people answered after both had.
    """
    from dlassets.monitoring.views.comparison import compare as compared
    from dlassets.monitoring.views.reading import Reading

    settings, _ = settings_and_lake()
    found = compared(Reading(settings), a, b)
    for sentence in found.sentences:
        click.echo(sentence)
    if found.pairs:
        rows = [(f"{pair.photos:,}", pair.name_a, pair.name_b) for pair in found.pairs]
        show(("photos", f"version {a} says", f"version {b} says"), rows)
        few = [
            (
                each.path or each.image_id,
                f"{each.name_a} {each.confidence_a:.2f}",
                f"{each.name_b} {each.confidence_b:.2f}",
                each.label_name or "",
            )
            for each in found.shown
        ]
        click.echo("The surest of these photos:")
        show(("photo", f"version {a} says", f"version {b} says", "labelled"), few)
    click.echo(f"With the photos: {settings.ui.page('compare', a=a, b=b)}")
