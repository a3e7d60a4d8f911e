# Seen heads and descriptors → injected heads → metrics; a job is a batch of cells with all seeds.
BATCH = ("{dataset}", "{backbone}", "{head}", "{descriptor}", "{number}")


rule cells:
    input:
        FLOW.batch_inputs,
        config=ancient(CONFIG),
    output:
        layout.batch(NAME, *BATCH),
    log:
        layout.log(NAME, "cells", *BATCH),
    benchmark:
        layout.benchmark(NAME, "cells", *BATCH)
    threads: FLOW.seeds_at_once
    resources:
        cells=FLOW.batches.size,  # no param: another size makes nothing anew that is there
    params:
        state=FLOW.batch_state,
    shell:
        "icis batch {wildcards.dataset} {wildcards.backbone} {wildcards.head}"
        " {wildcards.descriptor} {wildcards.number} --size {resources.cells}"
        " --config {input.config} --threads {threads} 2> {log}"
