"""The errors a user is meant to read. Each says what is wrong and what to do about it."""


class DlassetsError(Exception):
    """Something the user can put right; the message says how."""


class SettingsError(DlassetsError):
    """A setting is unknown or has a value that cannot be."""


class ConflictError(DlassetsError):
    """Another writer committed first; what was planned on the old snapshot must be planned again."""
