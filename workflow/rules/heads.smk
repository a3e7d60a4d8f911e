# Features of the seen classes → seen heads, one a seed.


rule train_head:
    input:
        FLOW.train_head_inputs,
        features=layout.features("{dataset}", "{backbone}"),
        config=ancient(CONFIG),
    output:
        layout.seen_heads("{dataset}", "{backbone}", "{head}"),
    log:
        layout.log(NAME, "train_head", "{dataset}", "{backbone}", "{head}"),
    benchmark:
        layout.benchmark(NAME, "train_head", "{dataset}", "{backbone}", "{head}")
    threads: FLOW.seeds_at_once
    params:
        state=FLOW.head_state,
    shell:
        "icis train-head {wildcards.dataset} {wildcards.backbone} {wildcards.head}"
        " --config {input.config} --threads {threads} 2> {log}"
