"""Descriptors made of class names or of free text."""
