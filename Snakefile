# The whole pipeline. Science comes from params.yaml (or the file given by --configfile), resources
# from workflow/profiles/.
import re
import sys
from pathlib import Path

from snakemake.utils import min_version

from icis import cluster, layout, runlock
from icis.errors import IcisError
from icis.workflow import FIGURES, FORMATS, PICTURES, Workflow, put_icis_on_path

min_version("9.3")
put_icis_on_path()

if not workflow.overwrite_configfiles:  # both would be merged

    configfile: "params.yaml"


SOURCE = ", ".join(str(file) for file in workflow.configfiles)
try:
    FLOW = Workflow(config, SOURCE, workflow)
    if "--lint" not in sys.argv:
        FLOW.require_files()
except IcisError as error:
    raise WorkflowError(str(error))

NAME = FLOW.name
CONFIG = FLOW.file


# used only with --software-deployment-method apptainer; built here from containers/icis.def
container: "containers/icis.sif"


wildcard_constraints:
    source="[^/]+",
    dataset="[^/]+",
    backbone="[^/]+",
    head="[^/]+",
    descriptor="[^/]+",
    number="[0-9]+",
    table="|".join(map(re.escape, FLOW.plan.table_cells)),
    kind="|".join(FIGURES),


# On a cluster these run where snakemake does: short, or in need of the network or of a database.
localrules:
    all,
    fetch,
    sources,
    collect,
    plot,
    tabulate,
    finish,
    track,


onstart:
    try:
        runlock.hold()
    except IcisError as error:
        raise WorkflowError(str(error))


onsuccess:
    FLOW.warn_of_records()


onerror:
    FLOW.warn_of_records()
    for file in log:
        for step in cluster.next_steps(Path(file)):
            print("What to do:", step, file=sys.stderr)


rule all:
    default_target: True
    input:
        layout.metrics(NAME),
        layout.headline(NAME),
        FLOW.table_files(),
        FLOW.figure_files(),
        layout.tracked(NAME),
        FLOW.complete_files(),


rule features:
    input:
        FLOW.feature_targets(),


rule heads:
    input:
        FLOW.head_targets(),


rule all_cells:
    input:
        FLOW.cell_records,


include: "workflow/rules/data.smk"
include: "workflow/rules/features.smk"
include: "workflow/rules/heads.smk"
include: "workflow/rules/cells.smk"
include: "workflow/rules/results.smk"
