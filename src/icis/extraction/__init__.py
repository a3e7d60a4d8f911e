"""Images → features: a backbone's pooled output for every row of an index.

``decoding`` reads pixels, ``forward`` runs the model, ``shards`` keeps what is done, ``run`` puts
them together on one device or several.
"""

from icis.extraction.collating import batches, collate

__all__ = ["batches", "collate"]
