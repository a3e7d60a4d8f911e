# Images → features, through a backbone that is trained first where the experiment says so.


rule finetune:
    input:
        FLOW.finetune_inputs,
        index=layout.index("{dataset}"),
        config=ancient(CONFIG),
    output:
        layout.backbone("{dataset}", "{backbone}") / "config.json",
        layout.backbone("{dataset}", "{backbone}") / "model.safetensors",
        layout.backbone("{dataset}", "{backbone}") / "history.parquet",
        layout.backbone("{dataset}", "{backbone}") / "trained.json",
    log:
        layout.log(NAME, "finetune", "{dataset}", "{backbone}"),
    benchmark:
        layout.benchmark(NAME, "finetune", "{dataset}", "{backbone}")
    threads: 8
    params:
        state=FLOW.finetune_state,
    shell:
        "icis finetune {wildcards.dataset} {wildcards.backbone} --config {input.config}"
        " --threads {threads} 2> {log}"


rule extract:
    input:
        FLOW.extract_inputs,
        index=layout.index("{dataset}"),
        config=ancient(CONFIG),
    output:
        layout.features("{dataset}", "{backbone}"),
    log:
        layout.log(NAME, "extract", "{dataset}", "{backbone}"),
    benchmark:
        layout.benchmark(NAME, "extract", "{dataset}", "{backbone}")
    threads: 8
    params:
        state=FLOW.extract_state,
    shell:
        "icis extract {wildcards.dataset} {wildcards.backbone} --config {input.config}"
        " --threads {threads} 2> {log}"
