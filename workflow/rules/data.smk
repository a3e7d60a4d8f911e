# Raw files → image index and descriptors.


rule draw:
    output:
        splits=layout.raw("{dataset}") / "splits.csv",
        attributes=layout.raw("{dataset}") / "attributes.csv",
    params:
        state=FLOW.draw_state,
    log:
        layout.log(NAME, "draw", "{dataset}"),
    benchmark:
        layout.benchmark(NAME, "draw", "{dataset}")
    shell:
        "{ICIS} draw {wildcards.dataset} --config {CONFIG} 2> {log}"


rule index:
    input:
        FLOW.index_inputs,
    output:
        layout.index("{dataset}"),
    params:
        state=FLOW.index_state,
    log:
        layout.log(NAME, "index", "{dataset}"),
    benchmark:
        layout.benchmark(NAME, "index", "{dataset}")
    shell:
        "{ICIS} index {wildcards.dataset} --config {CONFIG} 2> {log}"


rule describe:
    input:
        FLOW.describe_inputs,
        index=layout.index("{dataset}"),
    output:
        layout.descriptors("{dataset}", "{descriptor}"),
    params:
        state=FLOW.describe_state,
    log:
        layout.log(NAME, "describe", "{dataset}", "{descriptor}"),
    benchmark:
        layout.benchmark(NAME, "describe", "{dataset}", "{descriptor}")
    shell:
        "{ICIS} describe {wildcards.dataset} {wildcards.descriptor} --config {CONFIG} 2> {log}"
