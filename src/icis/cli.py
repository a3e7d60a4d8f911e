"""The command line: every stage is a verb; heavy libraries load in the verb that needs them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from icis.errors import IcisError, disk_error
from icis.fetching.command import data_app
from icis.tracking_command import track_app
from icis.versions.command import compare, pull

if TYPE_CHECKING:
    from icis.plan import Plan

app = typer.Typer(
    name="icis",
    help="Zero-shot classification without images: heads for unseen classes from descriptors.\n\n"
    "A whole experiment: snakemake --cores all --configfile FILE. The verbs under 'Stages' are "
    "the steps that it runs, in their order; each reads the files of the steps before it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
app.add_typer(data_app, name="data")
app.add_typer(track_app, name="track", rich_help_panel="Stages")

Config = Annotated[
    Path, typer.Option("--config", "-c", metavar="FILE", help="The experiment file.")
]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads to use.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N; auto takes a GPU if any.")]
DatasetName = Annotated[str, typer.Argument(metavar="DATASET", help="A key of 'datasets'.")]
BackboneName = Annotated[str, typer.Argument(metavar="BACKBONE", help="A key of 'backbones'.")]
HeadName = Annotated[
    str, typer.Argument(metavar="HEAD", help="Recipe and selection, such as linear-last.")
]
DescriptorName = Annotated[
    str, typer.Argument(metavar="DESCRIPTOR", help="A key of the data set's 'descriptors'.")
]
CellName = Annotated[
    str, typer.Argument(metavar="METHOD", help="<method>-<variant>, such as icis-default.")
]
TableName = Annotated[str, typer.Argument(metavar="TABLE", help="A key of 'tables'.")]
FigureKind = Annotated[str, typer.Argument(metavar="KIND", help="One of the table's 'figures'.")]
PARAMS = Path("params.yaml")
STAGES = "Stages"


def load_plan(config: Path) -> Plan:
    """Read an experiment file into a plan."""
    from icis.config import read_experiment
    from icis.plan import Plan

    return Plan(read_experiment(config), source=str(config))


def use_threads(threads: int) -> None:
    """Limit torch to the threads that the scheduler gave."""
    import torch

    torch.set_num_threads(threads)


def read_seeds(text: str) -> list[int]:
    """Read a list of seeds such as 0,1,2."""
    try:
        seeds = [int(part) for part in text.split(",")] if text else []
    except ValueError:
        seeds = [-1]
    if len({*seeds}) != len(seeds) or min(seeds, default=0) < 0:
        raise IcisError(f"--seeds {text}: give different whole numbers from 0 on, such as 0,1,2")
    return seeds


@app.command(rich_help_panel=STAGES)
def sources(config: Config = PARAMS) -> None:
    """Record sizes and hashes of everything that the experiment was fetched from."""
    from icis.stages import sources

    sources.run(load_plan(config))


@app.command(rich_help_panel=STAGES)
def draw(dataset: DatasetName, config: Config = PARAMS) -> None:
    """Draw the embedded data set into data/raw/DATASET."""
    from icis.stages import draw

    draw.run(load_plan(config), dataset)


@app.command(rich_help_panel=STAGES)
def index(dataset: DatasetName, config: Config = PARAMS) -> None:
    """Index the images of a data set with class and split."""
    from icis.stages import index

    index.run(load_plan(config), dataset)


@app.command(rich_help_panel=STAGES)
def describe_head(
    head: HeadName,
    descriptor: Annotated[
        str, typer.Argument(metavar="DESCRIPTOR", help="A key of the head's 'descriptors'.")
    ],
    config: Config = PARAMS,
) -> None:
    """Read the descriptors of a given head's classes."""
    from icis.stages import describe_head

    describe_head.run(load_plan(config), head, descriptor)


@app.command(rich_help_panel=STAGES)
def describe(dataset: DatasetName, descriptor: DescriptorName, config: Config = PARAMS) -> None:
    """Read a descriptor of every class."""
    from icis.stages import describe

    describe.run(load_plan(config), dataset, descriptor)


@app.command(rich_help_panel=STAGES)
def finetune(
    dataset: DatasetName,
    backbone: BackboneName,
    config: Config = PARAMS,
    threads: Threads = 1,
    device: Device = "auto",
) -> None:
    """Train a backbone on the seen classes' images."""
    from icis.stages import finetune

    use_threads(threads)
    finetune.run(load_plan(config), dataset, backbone, workers=threads - 1, device=device)


@app.command(rich_help_panel=STAGES)
def extract(
    dataset: DatasetName,
    backbone: BackboneName,
    config: Config = PARAMS,
    threads: Threads = 1,
    device: Annotated[
        str,
        typer.Option(
            help="auto, cpu, cuda, cuda:N or a list such as cuda:0,cuda:1; auto takes all GPUs."
        ),
    ] = "auto",
) -> None:
    """Extract the features of every image to Parquet."""
    from icis.stages import extract

    use_threads(threads)
    extract.run(load_plan(config), dataset, backbone, threads=threads, device=device)


@app.command(rich_help_panel=STAGES)
def train_head(
    dataset: DatasetName,
    backbone: BackboneName,
    head: HeadName,
    config: Config = PARAMS,
    threads: Threads = 1,
    device: Device = "auto",
) -> None:
    """Train the seen heads, one a seed."""
    use_threads(threads)
    plan = load_plan(config)
    if plan.head(dataset, head).kind == "given":
        from icis.stages import import_head

        import_head.run(plan, dataset, backbone, head)
        return
    from icis.stages import train_head

    train_head.run(plan, dataset, backbone, head, device=device)


@app.command(rich_help_panel=STAGES)
def inject(
    dataset: DatasetName,
    backbone: BackboneName,
    head: HeadName,
    descriptor: DescriptorName,
    method: CellName,
    config: Config = PARAMS,
    threads: Threads = 1,
    device: Device = "auto",
) -> None:
    """Run a method for each seed and join the heads that it predicts."""
    from icis.stages import inject

    use_threads(threads)
    plan = load_plan(config)
    inject.run(plan, plan.cell(dataset, backbone, head, descriptor, method), device=device)


@app.command(rich_help_panel=STAGES)
def evaluate(
    dataset: DatasetName,
    backbone: BackboneName,
    head: HeadName,
    descriptor: DescriptorName,
    method: CellName,
    config: Config = PARAMS,
    threads: Threads = 1,
    device: Device = "auto",
) -> None:
    """Evaluate injected heads on the test images."""
    from icis.stages import evaluate

    use_threads(threads)
    plan = load_plan(config)
    evaluate.run(plan, plan.cell(dataset, backbone, head, descriptor, method), device=device)


@app.command(rich_help_panel=STAGES)
def batch(
    dataset: DatasetName,
    backbone: BackboneName,
    head: HeadName,
    descriptor: DescriptorName,
    number: Annotated[
        str, typer.Argument(metavar="NUMBER", help="Which batch of these cells, from 0.")
    ],
    size: Annotated[
        int | None,
        typer.Option(min=1, help="Cells in a batch, at most; by default by their sum."),
    ] = None,
    config: Config = PARAMS,
    threads: Threads = 1,
    device: Device = "auto",
) -> None:
    """Inject and evaluate a batch of cells: what Snakemake runs, instead of the two above."""
    from icis.batches import Batches
    from icis.stages import batch

    use_threads(threads)
    plan = load_plan(config)
    chosen = Batches(plan, size).batch(dataset, backbone, head, descriptor, number)
    batch.run(plan, chosen, device=device)


@app.command(rich_help_panel=STAGES)
def collect(config: Config = PARAMS) -> None:
    """Collect the metrics of all cells into one table."""
    from icis.stages import collect

    collect.run(load_plan(config))


@app.command(rich_help_panel=STAGES)
def plot(table: TableName, kind: FigureKind, config: Config = PARAMS) -> None:
    """Draw a figure of a table."""
    from icis.stages import tabulate

    tabulate.plot(load_plan(config), table, kind)


@app.command(rich_help_panel=STAGES)
def tabulate(table: TableName, config: Config = PARAMS) -> None:
    """Make a table from the metrics of its cells, and a page with its figures."""
    from icis.stages import tabulate

    tabulate.run(load_plan(config), table)


@app.command(rich_help_panel=STAGES)
def finish(table: TableName, config: Config = PARAMS) -> None:
    """Mark a table as complete, or name what failed in it."""
    from icis.stages import finish

    finish.run(load_plan(config), table)


@app.command()
def register(
    dataset: DatasetName,
    backbone: BackboneName,
    head: HeadName,
    descriptor: DescriptorName,
    method: CellName,
    name: Annotated[str, typer.Option(help="The registered model's name.")],
    seed: Annotated[int, typer.Option(help="The seed whose head it is.")] = 0,
    features_only: Annotated[
        bool, typer.Option("--features-only", help="Leave the backbone out.")
    ] = False,
    config: Config = PARAMS,
) -> None:
    """Put an injected head into MLflow's registry, as a model that predicts by itself."""
    from icis.stages import register

    plan = load_plan(config)
    cell = plan.cell(dataset, backbone, head, descriptor, method)
    made = register.run(plan, cell, seed=seed, name=name, features_only=features_only)
    typer.echo(f"models:/{name}/{made}")


@app.command()
def check(config: Config = PARAMS) -> None:
    """Validate an experiment file and say what it would compute."""
    plan = load_plan(config)
    missing = plan.missing_files()
    if missing:
        from icis.errors import ConfigError

        raise ConfigError(str(config), missing)
    runs = sum(len(seeds) for seeds in plan.seeds.values())
    typer.echo(f"{config} is valid: {len(plan.cells)} cells, {runs} (cell, seed) runs")


@app.command()
def show(
    config: Config = PARAMS,
    table: Annotated[str | None, typer.Option(help="One table only.")] = None,
    from_mlflow: Annotated[
        bool, typer.Option(help="Rebuild the table from the MLflow store alone.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(help="Write the table as .csv, .md, .tex or .html instead of printing it."),
    ] = None,
) -> None:
    """Print an experiment's tables."""
    from icis.stages import show

    show.run(load_plan(config), table=table, from_mlflow=from_mlflow, output=output)


app.command()(compare)
app.command()(pull)


@app.command()
def cross_validate(
    dataset: DatasetName,
    backbone: BackboneName,
    head: HeadName,
    descriptor: DescriptorName,
    methods: Annotated[
        list[str] | None,
        typer.Argument(metavar="METHOD_KEY", help="Keys of 'methods'; by default all."),
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Parts of the seen classes.")] = 5,
    official: Annotated[
        bool, typer.Option(help="Folds are the data set's official valclasses1.txt to 3.")
    ] = False,
    seeds: Annotated[
        str, typer.Option(help="Such as 0,1,2; by default the experiment's.", metavar="LIST")
    ] = "",
    criterion: Annotated[
        str,
        typer.Option(help="pseudo_accuracy, held_out_cosine, retrieval, image_accuracy."),
    ] = "pseudo_accuracy",
    images: Annotated[
        bool, typer.Option("--images", help="Trainval images of the held-out classes judge too.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .csv for the values of all folds.")
    ] = None,
    config: Config = PARAMS,
    threads: Threads = 1,
    device: Device = "auto",
) -> None:
    """Compare methods without images, each fold of the seen classes held out in turn."""
    from icis.stages import cross_validate

    use_threads(threads)
    cross_validate.run(
        load_plan(config),
        dataset,
        backbone,
        head,
        descriptor,
        methods or (),
        folds=folds,
        official=official,
        seeds=read_seeds(seeds),
        criterion=criterion,
        images=images,
        device=device,
        output=output,
    )


@app.command()
def select(config: Config = PARAMS) -> None:
    """Make this the experiment of dvc.yaml's stages."""
    from icis.artifacts import write_text

    name = load_plan(config).experiment.name
    text = (
        "# The experiment of dvc.yaml's stages. Written by: make table EXPERIMENT=FILE\n"
        f"experiment:\n  file: {config}\n  name: {name}\n"
    )
    path = Path("workflow/experiment.yaml")
    if not path.is_file() or path.read_text() != text:
        write_text(path, text)


@app.command()
def schema() -> None:
    """Print the JSON schema of experiment files."""
    import json

    from icis.config import Experiment

    typer.echo(json.dumps(Experiment.model_json_schema(), indent=2))


@app.command()
def predict(
    head: Annotated[Path, typer.Argument(metavar="HEAD", help="An injected .safetensors head.")],
    features: Annotated[Path, typer.Argument(metavar="FEATURES", help="A features .parquet.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A .csv or .parquet to write.")],
    role: Annotated[
        str, typer.Option(help="joint: all classes compete; unseen: the unseen ones alone.")
    ] = "joint",
    device: Device = "auto",
) -> None:
    """Apply an injected head to features."""
    from icis.stages import predict

    predict.run(head, features, output, role=role, device=device)


def main() -> None:
    """Run the command line; a problem that the user can mend is one message and exit status 2."""
    try:
        app()
    except Exception as error:
        told = error if isinstance(error, IcisError) else disk_error(error)
        if told is None:
            raise
        typer.echo(f"icis: {told}", err=True)
        sys.exit(2)
