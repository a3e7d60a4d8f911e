"""Record what an experiment fetched."""

from __future__ import annotations

import json

from icis import layout
from icis.artifacts import write_json
from icis.plan import Plan


def run(plan: Plan) -> None:
    """Write size and hash of every file of every source, from the receipts."""
    names = plan.files.sources(plan.cells.values())
    receipts = {name: json.loads(layout.receipt(name).read_text()) for name in names}
    write_json(layout.sources(plan.experiment.name), receipts)
