"""The model of the medium, which the tools for crashes have too."""

from tools.crash.medium import PAGE_BYTES, Cut, Image, Medium, Node, Write, changed, lay_out

__all__ = ["PAGE_BYTES", "Cut", "Image", "Medium", "Node", "Write", "changed", "lay_out"]
