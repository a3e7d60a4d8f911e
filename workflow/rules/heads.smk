# Features of the seen classes → seen heads, one a seed.


rule train_head:
    input:
        layout.features("{dataset}", "{backbone}"),
    output:
        layout.seen_heads("{dataset}", "{backbone}", "{head}"),
    params:
        state=FLOW.head_state,
    log:
        layout.log(NAME, "train_head", "{dataset}", "{backbone}", "{head}"),
    benchmark:
        layout.benchmark(NAME, "train_head", "{dataset}", "{backbone}", "{head}")
    threads: 1
    shell:
        "{ICIS} train-head {wildcards.dataset} {wildcards.backbone} {wildcards.head}"
        " --config {CONFIG} --threads {threads} 2> {log}"
