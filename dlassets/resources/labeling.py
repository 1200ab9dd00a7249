"""The labelling service the settings name."""

from __future__ import annotations

from functools import cached_property

from dlassets.labeling.services import LabelingService
from dlassets.settings import Settings
from dlassets.storage.lake import Lake, local_path


class LabelingResource:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lake = Lake.at(settings.root)

    @cached_property
    def service(self) -> LabelingService:
        """Raises SettingsError where the lake's root is no folder, which the folder service needs."""
        from dlassets.labeling.folder import FolderService

        return FolderService(local_path(self._lake.requests), local_path(self._lake.answers))
