"""Who may what: the role that a request needs, by the server that it is for, its method and its path.

Reading is free to all who have logged in. Of what else there is, only what is named here is let through, written as it
is here: a path that is escaped in some other way is none of these. What servers themselves refuse (Dagster's read-only
one, MLflow to an account that reads) they refuse beside this.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dlassets.settings import Role

PAGES, SERVE, LABEL, DAGSTER, MLFLOW, LABEL_STUDIO = "pages", "serve", "label", "dagster", "mlflow", "label_studio"
# By which the proxy says which of them a request is for.
PART_HEADER = "X-Dlassets-Part"
PARTS = frozenset({PAGES, SERVE, LABEL, DAGSTER, MLFLOW, LABEL_STUDIO})
# All that a role lets a person do; whoever is let in reads.
DOES: dict[Role, str] = {
    "viewer": "reads",
    "labeller": "answers what people are asked",
    "operator": "launches runs, and writes to MLflow",
    "approver": "promotes and rejects versions",
}
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_API = r"/mlflow/(?:ajax-)?api/\d\.\d/mlflow"


@dataclass(frozen=True)
class Rule:
    """What a request must look like to need this role; None: nobody may."""

    part: str
    role: Role | None
    path: str
    methods: frozenset[str] | None = None

    def is_about(self, part: str, method: str, path: str) -> bool:
        has_method = method not in _READS if self.methods is None else method in self.methods
        return part == self.part and has_method and re.fullmatch(self.path, path) is not None


_ANY = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
# The first that fits says it.
RULES = (
    Rule(LABEL_STUDIO, "labeller", ".*", _ANY),
    Rule(LABEL, "labeller", "/label/(?:next|answers)"),
    Rule(SERVE, "labeller", "/serve/label/(?:next|answers)"),
    # To ask the model about a photo is to read.
    Rule(SERVE, "viewer", r"/serve/(?:predict|invocations)"),
    Rule(SERVE, "viewer", r"/serve/v2/models/[\w .-]+/(?:versions/\d+/)?infer"),
    Rule(PAGES, "approver", "/versions/(?:approve|reject)"),
    # The read-only one of two answers it, to all but operators, and refuses whatever would change anything.
    Rule(DAGSTER, "viewer", "/dagster/graphql"),
    Rule(DAGSTER, "operator", "/dagster/.*"),
    # The accounts of the service are nobody's to change.
    Rule(MLFLOW, None, r".*/(?:users|roles|permissions|signup)(?:/.*)?"),
    Rule(MLFLOW, "viewer", "/mlflow/graphql"),
    Rule(MLFLOW, "viewer", rf"{_API}/[a-z-]+/(?:search|search-datasets|get-latest-versions)"),
    Rule(MLFLOW, "viewer", rf"{_API}/traces/(?:batchGetInfos|calculate-filter-correlation)"),
    Rule(
        MLFLOW,
        "approver",
        rf"{_API}/(?:registered-models/(?:alias|delete|rename)|model-versions/(?:transition-stage|delete))",
    ),
    # No part begins with a dot: what goes back again is another address than it seems to be.
    Rule(MLFLOW, "operator", r"/mlflow(?:/[\w=-][\w.=-]*)+"),
)


def needed(part: str, method: str, path: str) -> Role | None:
    """Return the role that a request needs, None for one that nobody may make."""
    for rule in RULES:
        if rule.is_about(part, method, path):
            return rule.role
    return "viewer" if method in _READS and part in PARTS else None


def refusal(part: str, method: str, path: str, roles: frozenset[str]) -> str | None:
    """Return why a request of somebody of these roles is refused, as one sentence; None for one to be answered."""
    role = needed(part, method, path)
    if role is None:
        return f"{method} is not taken at this address, whoever asks."
    # Whoever has any role reads.
    if role in roles or (role == "viewer" and roles):
        return None
    mine = ", ".join(sorted(roles)) or "none"
    return f"This needs the role {role}, who {DOES[role]}; yours: {mine}. An administrator gives roles: docs/access.md."
