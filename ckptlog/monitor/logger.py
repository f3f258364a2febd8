"""LoggerFactory: the specification's control over logging, on the standard logging package.

Everything here logs to loggers below "ckptlog". That is a library's: it has no handler of its own
and never touches the root logger; what is shown is the program's to say. On request a handler is
added to "ckptlog" (`show`), once, and taken away again (`hide`).
"""

from __future__ import annotations

import enum
import json
import logging
import sys
from collections.abc import Mapping, MutableMapping
from threading import Lock
from typing import Any, ClassVar, Final, TextIO

from ckptlog.errors import ArgumentError
from ckptlog.model.quotation import quoted, shown
from ckptlog.storage.fork import free_in_child

ROOT: Final = "ckptlog"
_TRACE: Final = 5
_SILENT: Final = logging.CRITICAL + 10
# Of a record of logging: none of it is an extra.
_PLAIN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LogLevel(enum.IntEnum):
    """How much is logged; the numbers are those of `logging`."""

    TRACE = _TRACE
    DEBUG = logging.DEBUG
    INFO = logging.INFO
    WARNING = logging.WARNING
    WARN = logging.WARNING
    ERROR = logging.ERROR
    CRITICAL = logging.CRITICAL
    SILENT = _SILENT

    @classmethod
    def of(cls, level: object) -> LogLevel:
        """Return the level of a level, its name in any case, or its number.

        Raises:
            ArgumentError: There is no such level.
        """
        if isinstance(level, str) and level.strip().upper() in cls.__members__:
            return cls[level.strip().upper()]
        if type(level) is int or isinstance(level, LogLevel):
            for one in cls:
                if one == level:
                    return one
        raise ArgumentError(
            f"There is no log level {quoted(level)}.",
            hint=f"Levels are: {', '.join(cls.__members__)}.",
            argument="level",
        )


class StructuredLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger with fields: those of it and those of the call are attributes of the record.

        log = LoggerFactory.get_logger("upload", worker="w-1")
        log.info("Saved", extra={"bytes": 12})

    A name that a record has already gets `ckptlog_` in front.
    """

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Join the fields (called by logging)."""
        given = kwargs.get("extra") or {}
        fields = {**(self.extra or {}), **given}
        kwargs["extra"] = {_free(name): value for name, value in fields.items()}
        return msg, kwargs

    def bind(self, **fields: Any) -> StructuredLogger:
        """Return the same logger with more fields."""
        return StructuredLogger(self.logger, {**(self.extra or {}), **fields})


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return json.dumps(line, default=shown, ensure_ascii=False)
        except (TypeError, ValueError, RecursionError):  # a key that is no text; a list in itself
            plain = {
                name: one if isinstance(one, str) else shown(one) for name, one in line.items()
            }
            return json.dumps(plain, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """A line for people, with the fields at its end."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line without exceptions."""
        fields = " ".join(f"{name}={shown(value)}" for name, value in fields_of(record).items())
        line = super().formatMessage(record)
        return f"{line}  {fields}" if fields else line


_lock = Lock()
free_in_child(sys.modules[__name__], "_lock")


class LoggerFactory:
    """Levels and loggers of ckptlog, for the whole process.

    Threads: safe.
    """

    _handler: ClassVar[logging.Handler | None] = None
    _propagates: ClassVar[bool] = True

    @staticmethod
    def set_global_log_level(level: LogLevel | str | int) -> LogLevel:
        """Set from which level on ckptlog logs; return the one before.

        Shown is what the program's handlers (or `show`) let through.

        Raises:
            ArgumentError: There is no such level.
        """
        before = LoggerFactory.get_global_log_level()
        logging.getLogger(ROOT).setLevel(int(LogLevel.of(level)))
        return before

    setGlobalLogLevel = set_global_log_level  # noqa: N815 - the specification's name

    @staticmethod
    def get_global_log_level() -> LogLevel:
        """Return the level that is in force."""
        number = logging.getLogger(ROOT).getEffectiveLevel()
        return next((one for one in LogLevel if one >= number), LogLevel.SILENT)

    @staticmethod
    def get_logger(name: str = "", **fields: Any) -> StructuredLogger:
        """Return a logger below "ckptlog"; its fields are in each of its records.

        Raises:
            ArgumentError: The name is no text.
        """
        if not isinstance(name, str):
            raise ArgumentError(f"name is {quoted(name)}; a text is needed.", argument="name")
        is_whole = name == ROOT or name.startswith(f"{ROOT}.")
        whole = name if is_whole else f"{ROOT}.{name}".rstrip(".")
        return StructuredLogger(logging.getLogger(whole), fields)

    getLogger = get_logger  # noqa: N815 - the way that logging has it

    @staticmethod
    def show(stream: TextIO | None = None, *, as_json: bool = False) -> logging.Handler:
        """Show what ckptlog logs on a stream, standard error by default; return the handler.

        A second call replaces the first one's. Handlers of the root logger are left alone, and
        are not told what is shown here already.
        """
        handler = logging.StreamHandler(stream)
        handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
        LoggerFactory.hide()
        with _lock:
            LoggerFactory._handler = handler
            logger = logging.getLogger(ROOT)
            logger.addHandler(handler)
            LoggerFactory._propagates, logger.propagate = logger.propagate, False
        return handler

    @staticmethod
    def hide() -> None:
        """Take away what `show` added. Twice is fine."""
        with _lock:
            handler, LoggerFactory._handler = LoggerFactory._handler, None
            if handler is not None:
                logger = logging.getLogger(ROOT)
                logger.removeHandler(handler)
                logger.propagate = LoggerFactory._propagates


def fields_of(record: logging.LogRecord) -> Mapping[str, Any]:
    """Return the extras of a record."""
    return {name: value for name, value in vars(record).items() if name not in _PLAIN}


def _free(name: str) -> str:
    return f"ckptlog_{name}" if name in _PLAIN else name
