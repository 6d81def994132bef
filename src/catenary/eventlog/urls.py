"""URLs of logs, as they may be shown. Pure."""

from __future__ import annotations

import re

_USER = re.compile(r"(?<=://)[^/@]*@")
_PASSWORD = re.compile(r"(?<=password=)[^&]*")


def without_secrets(url: str) -> str:
    """Return a log's URL without the passwords in it, for errors and logs."""
    return _PASSWORD.sub("…", _USER.sub("…@", url))
