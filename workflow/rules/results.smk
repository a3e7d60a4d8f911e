# Metrics of all cells → one table of metrics → tables, figures, records.


rule collect:
    input:
        FLOW.cell_records,
        config=ancient(CONFIG),
    output:
        metrics=layout.metrics(NAME),
        headline=layout.headline(NAME),
    log:
        layout.log(NAME, "collect"),
    benchmark:
        layout.benchmark(NAME, "collect")
    params:
        state=FLOW.collect_state,
    shell:
        "icis collect --config {input.config} 2> {log}"


rule plot:
    input:
        FLOW.table_inputs,
        config=ancient(CONFIG),
    output:
        [layout.figure(NAME, "{table}", "{kind}", s) for s in PICTURES[1:]],
        report(
            layout.figure(NAME, "{table}", "{kind}", "svg"),
            category="Figures",
            caption="../report/figure.rst",
            labels={"table": "{table}", "figure": "{kind}"},
        ),
    log:
        layout.log(NAME, "plot", "{table}", "{kind}"),
    benchmark:
        layout.benchmark(NAME, "plot", "{table}", "{kind}")
    params:
        state=FLOW.tabulate_state,
    shell:
        "icis plot {wildcards.table} {wildcards.kind} --config {input.config} 2> {log}"


rule tabulate:
    input:
        FLOW.table_inputs,
        FLOW.page_inputs,
        config=ancient(CONFIG),
    output:
        [layout.table(NAME, "{table}", s) for s in FORMATS[:-1]],
        [layout.differences(NAME, "{table}", s) for s in ("csv", "md")],
        report(
            layout.table(NAME, "{table}", "html"),
            category="Tables",
            caption="../report/table.rst",
            labels={"table": "{table}"},
        ),
    log:
        layout.log(NAME, "tabulate", "{table}"),
    benchmark:
        layout.benchmark(NAME, "tabulate", "{table}")
    params:
        state=FLOW.tabulate_state,
    shell:
        "icis tabulate {wildcards.table} --config {input.config} 2> {log}"


rule finish:
    input:
        FLOW.table_inputs,
        FLOW.page_inputs,
        layout.table(NAME, "{table}", "html"),
        config=ancient(CONFIG),
    output:
        layout.complete(NAME, "{table}"),
    log:
        layout.log(NAME, "finish", "{table}"),
    benchmark:
        layout.benchmark(NAME, "finish", "{table}")
    shell:
        "icis finish {wildcards.table} --config {input.config} 2> {log}"


rule track:
    input:
        layout.metrics(NAME),
        FLOW.table_files(),
        FLOW.figure_files(),
        config=ancient(CONFIG),
    output:
        layout.tracked(NAME),
    log:
        layout.log(NAME, "track"),
    benchmark:
        layout.benchmark(NAME, "track")
    params:
        state=FLOW.track_state,
    shell:
        "icis track --may-wait --config {input.config} 2> {log}"
