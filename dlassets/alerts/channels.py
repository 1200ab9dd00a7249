"""Where alerts go: an address for each of the settings' URLs, to which Apprise sends by mail, web hook or chat."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from dlassets.errors import SettingsError
from dlassets.masking import learn, masked
from dlassets.settings import AlertSettings

if TYPE_CHECKING:
    from apprise.plugins import NotifyBase

_LONGEST_PROBLEM = 500


@dataclass(frozen=True)
class Message:
    """What is sent at once; an alarm is of something that went wrong."""

    title: str
    body: str
    is_alarm: bool = True


@dataclass(frozen=True)
class Channel:
    """One address. Its name is the address without anything secret: the same when its password changes."""

    name: str
    plugin: NotifyBase

    def send(self, message: Message) -> str | None:
        """Send a message; return what went wrong, None where the other side has taken it."""
        from apprise import NotifyFormat, NotifyType

        kind = NotifyType.FAILURE if message.is_alarm else NotifyType.INFO
        with _Overheard() as overheard:
            try:
                is_taken = self.plugin.notify(message.body, message.title, kind, body_format=NotifyFormat.TEXT)
            except Exception as error:  # noqa: BLE001 - whichever of a hundred services it is: none of them fails a run
                return masked(f"{type(error).__name__}: {error}")[:_LONGEST_PROBLEM]
        return None if is_taken else overheard.problem


def channels_of(settings: AlertSettings) -> list[Channel]:
    """Return every address that the settings name.

    Raises SettingsError where a URL is none of Apprise's, or the file of them cannot be read.
    """
    from apprise import Apprise

    channels: list[Channel] = []
    for place, url in enumerate([*settings.urls, *_urls_in(settings.urls_file)], 1):
        with _Overheard() as overheard:
            plugin = Apprise.instantiate(url)
        if plugin is None:
            raise SettingsError(
                f"The {place}. URL of alerts.urls ({url.partition('://')[0]}://…) is none that Apprise can send to: "
                f"{overheard.problem} See https://github.com/caronc/apprise for how each service's is written."
            )
        name = "/".join(map(masked, plugin.url(privacy=True).partition("?")[0].split("/")))
        same = sum(channel.name.partition(" ")[0] == name for channel in channels)
        channels.append(Channel(f"{name} ({same + 1})" if same else name, plugin))
    return channels


def send_everywhere(channels: Sequence[Channel], messages: Sequence[Message | None]) -> list[str | None]:
    """Send each channel its message, if it has one, all at once; return what went wrong with each."""
    with ThreadPoolExecutor(max(1, len(channels))) as pool:
        pairs = zip(channels, messages, strict=True)
        sending = [pool.submit(channel.send, message) if message else None for channel, message in pairs]
        return [None if each is None else each.result() for each in sending]


def _urls_in(file: str | None) -> list[str]:
    from dlassets.storage.files import read_whole

    if file is None:
        return []
    try:
        urls = read_whole(file).decode().split()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"alerts.urls_file cannot be read: {error}") from error
    learn(urls, "urls")
    return urls


class _Overheard(logging.Handler):
    """What Apprise logs in this thread meanwhile: why it could not send is said nowhere else."""

    _logger = logging.getLogger("apprise")
    _listening, _listeners = threading.Lock(), 0

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._thread = threading.get_ident()
        self._lines: list[str] = []

    @property
    def problem(self) -> str:
        lines = dict.fromkeys(self._lines)
        return masked(" ".join(lines) or "It did not say why.")[:_LONGEST_PROBLEM]

    def emit(self, record: logging.LogRecord) -> None:
        says_why = record.levelno >= logging.WARNING or "xception" in str(record.msg)
        if says_why and record.thread == self._thread:
            self._lines.append(record.getMessage().strip())

    def __enter__(self) -> Self:
        self._listen(1)
        self._logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
        self._listen(-1)

    @classmethod
    def _listen(cls, more: int) -> None:
        """Have all be said while anybody listens, and nothing of it anywhere else."""
        with cls._listening:
            cls._listeners += more
            cls._logger.setLevel(logging.DEBUG if cls._listeners else logging.NOTSET)
            cls._logger.propagate = not cls._listeners
