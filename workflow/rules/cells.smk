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
    threads: 1
    params:
        state=FLOW.batch_state,
    # the size is no state: another one makes nothing anew that is there
    shell:
        "icis batch {wildcards.dataset} {wildcards.backbone} {wildcards.head}"
        " {wildcards.descriptor} {wildcards.number} --size {FLOW.batches.size}"
        " --config {input.config} --threads {threads} 2> {log}"
