"""LangGraph: `CkptlogSaver`, a checkpointer on a store. Needs `pip install "ckptlog[langgraph]"`.

Page: specs/langgraph.md.
"""

from __future__ import annotations

try:
    import langgraph.checkpoint.base as _base
except ImportError as error:
    raise ImportError(
        "ckptlog.integrations.langgraph needs langgraph-checkpoint: "
        'pip install "ckptlog[langgraph]"'
    ) from error
del _base

from ckptlog.integrations.langgraph.saver import CkptlogSaver  # noqa: E402 - needs the above

__all__ = ["CkptlogSaver"]
