"""LangGraph: `CkptlogSaver`, a checkpointer on a store. Needs `pip install "ckptlog[langgraph]"`.

Page: specs/langgraph.md. The modules that only read names and metadata do without LangGraph: the
command line lists threads where it is not installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ckptlog.integrations.langgraph.saver import CkptlogSaver

__all__ = ["CkptlogSaver"]


def __getattr__(name: str) -> Any:
    if name != "CkptlogSaver":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from ckptlog.integrations.langgraph.saver import CkptlogSaver
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"langgraph", "langchain_core"}:
            raise
        raise ImportError(
            f"CkptlogSaver needs LangGraph's packages; {error.name} is missing: "
            'pip install "ckptlog[langgraph]"'
        ) from error
    return CkptlogSaver
