# Seen heads and descriptors → injected heads → metrics; a job is a cell with all its seeds.
CELL = ("{dataset}", "{backbone}", "{head}", "{descriptor}", "{method}")


rule inject:
    input:
        FLOW.inject_inputs,
        config=ancient(CONFIG),
    output:
        layout.injection(NAME, *CELL),
    log:
        layout.log(NAME, "inject", *CELL),
    benchmark:
        layout.benchmark(NAME, "inject", *CELL)
    threads: 1
    params:
        state=FLOW.inject_state,
    shell:
        "icis inject {wildcards.dataset} {wildcards.backbone} {wildcards.head}"
        " {wildcards.descriptor} {wildcards.method} --config {input.config} --threads {threads} 2> {log}"


rule evaluate:
    input:
        FLOW.evaluate_inputs,
        heads=layout.seen_heads(*CELL[:3]),
        injection=layout.injection(NAME, *CELL),
        config=ancient(CONFIG),
    output:
        layout.cell_metrics(NAME, *CELL),
        layout.curves(NAME, *CELL),
        layout.classes(NAME, *CELL),
    log:
        layout.log(NAME, "evaluate", *CELL),
    benchmark:
        layout.benchmark(NAME, "evaluate", *CELL)
    threads: 1
    params:
        state=FLOW.evaluate_state,
    shell:
        "icis evaluate {wildcards.dataset} {wildcards.backbone} {wildcards.head}"
        " {wildcards.descriptor} {wildcards.method} --config {input.config} --threads {threads} 2> {log}"
