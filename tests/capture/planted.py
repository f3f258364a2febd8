"""Captures one component and reads its payload back, through the store as the Capturer does."""

from __future__ import annotations

from ckptlog.capture.capturer import Capturer
from ckptlog.model.component import faults_of, traits_of


class System:
    """A system of one component."""

    def __init__(self, manager, component, name="system"):
        self.component = component
        self.capturer = Capturer(manager, name, [component])

    def capture(self):
        return self.capturer.capture()

    def payload(self, info):
        stored = self.capturer.stored(info)[self.component.name]
        return stored if traits_of(self.component).reads_parts else stored.value()

    def restore(self, info):
        payload = self.payload(info)
        assert faults_of(self.component, payload) == []
        self.component.restore(payload)
