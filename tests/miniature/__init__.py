"""Every host of the paper's data in small: archives in their true layouts, a catalogue of them."""

from tests.miniature.build import Miniature, build

__all__ = ["Miniature", "build"]
