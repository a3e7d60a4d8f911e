# Metrics of all cells → one table of metrics → tables, figures, records.


rule collect:
    input:
        FLOW.cell_files(),
    output:
        metrics=layout.metrics(NAME),
        headline=layout.headline(NAME),
    params:
        state=FLOW.collect_state,
    log:
        layout.log(NAME, "collect"),
    benchmark:
        layout.benchmark(NAME, "collect")
    shell:
        "{ICIS} collect --config {CONFIG} 2> {log}"


rule tabulate:
    input:
        layout.metrics(NAME),
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
    params:
        state=FLOW.tabulate_state,
    log:
        layout.log(NAME, "tabulate"),
    benchmark:
        layout.benchmark(NAME, "tabulate")
    shell:
        "{ICIS} tabulate --config {CONFIG} 2> {log}"


rule track:
    input:
        layout.metrics(NAME),
        [layout.table(NAME, t, s) for t in FLOW.plan.table_cells for s in FORMATS],
        [layout.figure(NAME, t, s) for t in FLOW.plan.table_cells for s in PICTURES],
    output:
        layout.tracked(NAME),
    params:
        state=FLOW.track_state,
    log:
        layout.log(NAME, "track"),
    benchmark:
        layout.benchmark(NAME, "track")
    shell:
        "{ICIS} track --config {CONFIG} 2> {log}"
