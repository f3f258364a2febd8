"""TEMPORARY by the lead: the owner of this file replaces it."""
from typing import Any
class Quota:
    def __init__(self, store: Any, gb: float) -> None: ...
    def check(self) -> None: ...
def clean_up(manager: Any, max_age_days: int, *, dry_run: bool) -> int: return 0
def compact(manager: Any) -> dict[str, Any]: return {}
def summary(manager: Any) -> dict[str, Any]: return {}
def metrics(manager: Any) -> dict[str, Any]: return {}
