"""
Structured logs: records with user, connection and run ids, and without tokens.

The bridge logs to loggers under ``catenary`` and gives its ids as ``extra=``.
Any handler may show them; these formatters do, and blank whatever looks like
a credential, also in what other libraries log.
"""

from __future__ import annotations

import datetime as dt
import logging
import re
from typing import Any, Literal

from catenary.encoding import encode

IDS = ("user_id", "log_id", "thread_id", "connection_id", "run_id")
"""The attributes of a record that name what it is about."""

HIDDEN = "[HIDDEN]"

_CREDENTIALS = re.compile(
    r"eyJ[\w-]{5,}\.[\w-]+(?:\.[\w-]*)?"  # a JWT, wherever it stands
    r"|(?<=catenary\.bearer\.)[\w.-]+"
    r"|(?i:(?<=bearer )|(?<=bearer%20))[^\s\"',;]+"
    r"|(?i:(?<=[?&]ticket=)|(?<=[?&]token=)|(?<=[?&]access_token=)|(?<=[?&]jwt=))[^\s&\"']+",
    re.ASCII,
)


def without_credentials(text: str) -> str:
    """Return ``text`` with every token and ticket in it blanked."""
    return _CREDENTIALS.sub(HIDDEN, text)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (ISO 8601, UTC), level, logger, message, ids, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        at = dt.datetime.fromtimestamp(record.created, dt.UTC)
        shown: dict[str, Any] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": without_credentials(record.getMessage()),
            **_ids(record),
        }
        exception = _exception(self, record)
        if exception:
            shown["exception"] = exception
        return encode(shown).decode()


class ConsoleFormatter(logging.Formatter):
    """One line for people: time, level, logger, message, then the ids."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line, and the exception below it."""
        at = dt.datetime.fromtimestamp(record.created, dt.UTC).astimezone()
        ids = "".join(f"  {name}={value}" for name, value in _ids(record).items())
        line = (
            f"{at:%H:%M:%S.}{at.microsecond // 1000:03} {record.levelname:<8} "
            f"{record.name}  {without_credentials(record.getMessage())}{ids}"
        )
        exception = _exception(self, record)
        return f"{line}\n{exception}" if exception else line


class AccessLogFilter(logging.Filter):
    """
    Takes queries out of a server's access log, for tickets stand in them.

    For the loggers ``uvicorn.access`` and ``uvicorn.error``, whatever formats
    their records: the arguments are changed. Nothing is filtered out.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Cut the target of a request at its ``?``."""
        if isinstance(record.args, tuple):
            record.args = tuple(map(_without_query, record.args))
        return True


def _without_query(argument: object) -> object:
    if isinstance(argument, str) and argument.startswith("/") and "?" in argument:
        return argument.partition("?")[0]
    return argument


def log_config(
    style: Literal["json", "console"] = "console", *, level: str = "INFO"
) -> dict[str, Any]:
    """
    Return a configuration for ``logging.config.dictConfig`` and uvicorn's ``log_config=``.

    Everything goes to standard error, in one format.
    """
    formatter = JsonFormatter if style == "json" else ConsoleFormatter
    shown = {"handlers": ["default"], "level": level, "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"access": {"()": AccessLogFilter}},
        "formatters": {"default": {"()": formatter}},
        "handlers": {"default": {"class": "logging.StreamHandler", "formatter": "default"}},
        "root": {"handlers": ["default"], "level": "WARNING"},
        "loggers": {
            "catenary": shown,
            "uvicorn": shown,
            "uvicorn.error": {"level": level, "filters": ["access"]},
            "uvicorn.access": {**shown, "filters": ["access"]},
        },
    }


def _ids(record: logging.LogRecord) -> dict[str, str]:
    ids = {name: str(value) for name in IDS if (value := getattr(record, name, None)) is not None}
    if record.processName not in {None, "MainProcess"}:
        # One of several, such as a worker.
        ids["process"] = str(record.processName)
    return ids


def _exception(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info:
        parts.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return without_credentials("\n".join(parts))
