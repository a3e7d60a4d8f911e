"""Versions of results: what is recorded beside them, how two compare, how one is brought back."""
