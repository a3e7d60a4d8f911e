"""Zero-shot classification without images: heads for unseen classes from class descriptors."""

__version__ = "0.1.0"
