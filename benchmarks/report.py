"""Show figures as tables as they come, and write them down."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console


@dataclass
class Report:
    """Prints to `console`; writes all figures so far to `record`, if one is given, since a later part may fail."""

    console: Console
    record: Path | None = None
    figures: dict[str, Any] = field(default_factory=dict)

    def show(self, name: str, result: Any) -> None:
        """Show what was measured: a dataclass with `tables`."""
        self.figures[name] = asdict(result)
        for table in result.tables():
            self.console.print(table, "")
        if self.record is not None:
            self.record.write_text(json.dumps(self.figures, indent=2) + "\n")
