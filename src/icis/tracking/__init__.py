"""Experiments in MLflow: every number of every (cell, seed), exactly once.

An experiment there is an experiment here. Below it stands one run for each *invocation* that
changed something, with the experiment file, tables and figures; below that one run for each
(cell, seed) that it logged. The files on disk are the record: logging lists what the store holds
and adds what is missing, so it may be repeated, or killed and started again. A run counts once its
tag ``icis.complete`` is set, which is written last; whatever a newer record replaces keeps its
history under the tag ``icis.superseded``.

``records`` reads what is to be logged, ``runs`` writes single runs, ``invocation`` puts them
together, ``rebuilding`` reads them back.
"""

from icis.tracking.invocation import Receipt, log_experiment
from icis.tracking.rebuilding import metrics_from_store
from icis.tracking.records import HEADS, Heads

__all__ = ["HEADS", "Heads", "Receipt", "log_experiment", "metrics_from_store"]
