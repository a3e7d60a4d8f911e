# Metrics of all cells → one table of metrics → tables, figures, records.


rule collect:
    input:
        FLOW.cell_files(),
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


rule tabulate:
    input:
        layout.metrics(NAME),
        config=ancient(CONFIG),
    output:
        [layout.table(NAME, t, s) for t in FLOW.plan.table_cells for s in FORMATS[:-1]],
        [layout.figure(NAME, t, s) for t in FLOW.plan.table_cells for s in PICTURES[1:]],
        [
            report(
                layout.table(NAME, t, "html"),
                category="Tables",
                caption="../report/table.rst",
                labels={"table": t},
            )
            for t in FLOW.plan.table_cells
        ],
        [
            report(
                layout.figure(NAME, t, "svg"),
                category="Figures",
                caption="../report/figure.rst",
                labels={"figure": t},
            )
            for t in FLOW.plan.table_cells
        ],
    log:
        layout.log(NAME, "tabulate"),
    benchmark:
        layout.benchmark(NAME, "tabulate")
    params:
        state=FLOW.tabulate_state,
    shell:
        "icis tabulate --config {input.config} 2> {log}"


rule track:
    input:
        layout.metrics(NAME),
        [layout.table(NAME, t, s) for t in FLOW.plan.table_cells for s in FORMATS],
        [layout.figure(NAME, t, s) for t in FLOW.plan.table_cells for s in PICTURES],
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
        "icis track --config {input.config} 2> {log}"
