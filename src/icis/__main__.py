"""``python -m icis``: the command line, for callers that know only their interpreter."""

from icis.cli import main

main()
