# Sources on the net → raw files → image index and descriptors.


rule fetch:
    output:
        layout.receipt("{source}"),
    log:
        layout.log(NAME, "fetch", "{source}"),
    benchmark:
        layout.benchmark(NAME, "fetch", "{source}")
    params:
        state=FLOW.fetch_state,
    shell:
        "icis data fetch {wildcards.source} 2> {log}"


rule sources:
    input:
        FLOW.receipts,
        config=ancient(CONFIG),
    output:
        layout.sources(NAME),
    log:
        layout.log(NAME, "sources"),
    benchmark:
        layout.benchmark(NAME, "sources")
    shell:
        "icis sources --config {input.config} 2> {log}"


rule draw:
    input:
        config=ancient(CONFIG),
    output:
        splits=layout.raw("{dataset}") / "splits.csv",
        attributes=layout.raw("{dataset}") / "attributes.csv",
    log:
        layout.log(NAME, "draw", "{dataset}"),
    benchmark:
        layout.benchmark(NAME, "draw", "{dataset}")
    params:
        state=FLOW.draw_state,
    shell:
        "icis draw {wildcards.dataset} --config {input.config} 2> {log}"


rule index:
    input:
        FLOW.index_inputs,
        config=ancient(CONFIG),
    output:
        layout.index("{dataset}"),
    log:
        layout.log(NAME, "index", "{dataset}"),
    benchmark:
        layout.benchmark(NAME, "index", "{dataset}")
    params:
        state=FLOW.index_state,
    shell:
        "icis index {wildcards.dataset} --config {input.config} 2> {log}"


rule describe_head:
    input:
        FLOW.describe_head_inputs,
        config=ancient(CONFIG),
    output:
        layout.head_descriptors("{head}", "{descriptor}"),
    log:
        layout.log(NAME, "describe_head", "{head}", "{descriptor}"),
    benchmark:
        layout.benchmark(NAME, "describe_head", "{head}", "{descriptor}")
    params:
        state=FLOW.describe_head_state,
    shell:
        "icis describe-head {wildcards.head} {wildcards.descriptor} --config {input.config} 2> {log}"


rule describe:
    input:
        FLOW.describe_inputs,
        index=layout.index("{dataset}"),
        config=ancient(CONFIG),
    output:
        layout.descriptors("{dataset}", "{descriptor}"),
    log:
        layout.log(NAME, "describe", "{dataset}", "{descriptor}"),
    benchmark:
        layout.benchmark(NAME, "describe", "{dataset}", "{descriptor}")
    params:
        state=FLOW.describe_state,
    shell:
        "icis describe {wildcards.dataset} {wildcards.descriptor} --config {input.config} 2> {log}"
