"""Where every artifact lies; the only place that knows (Snakefile and CLI both ask here).

All methods take names, or Snakemake wildcards such as ``{dataset}``.
"""

from __future__ import annotations

from pathlib import Path


def raw(dataset: str) -> Path:
    """Return the folder of a data set that the project makes itself."""
    return Path("data/raw") / dataset


def index(dataset: str) -> Path:
    """Return the image index: a row is an image."""
    return Path("data/index") / f"{dataset}.parquet"


def descriptors(dataset: str, descriptor: str) -> Path:
    """Return the descriptors: a row is a class."""
    return Path("data/descriptors") / dataset / f"{descriptor}.parquet"


def head_descriptors(head: str, descriptor: str) -> Path:
    """Return the descriptors of a given head's classes: a row is a class."""
    return Path("data/descriptors/heads") / head / f"{descriptor}.parquet"


def backbone(dataset: str, backbone: str) -> Path:
    """Return the folder of a backbone trained on a data set, in timm's local-dir layout."""
    return Path("data/backbones") / dataset / backbone


def partial_backbone(dataset: str, backbone: str) -> Path:
    """Return the folder of a backbone in training, a folder a key: no output of any rule."""
    return Path("data/partial/backbones") / dataset / backbone


def features(dataset: str, backbone: str) -> Path:
    """Return the features: a row is an image."""
    return Path("data/features") / dataset / f"{backbone}.parquet"


def partial_features(dataset: str, backbone: str) -> Path:
    """Return the folder of features in the making, a folder a key: no output of any rule."""
    return Path("data/partial/features") / dataset / backbone


def seen_heads(dataset: str, backbone: str, head: str) -> Path:
    """Return the seen heads: a row is a (seed, seen class)."""
    return Path("data/heads") / dataset / backbone / f"{head}.parquet"


def results(experiment: str) -> Path:
    """Return the folder of an experiment's results."""
    return Path("results") / experiment


def cell(
    experiment: str, dataset: str, backbone: str, head: str, descriptor: str, method: str
) -> Path:
    """Return a cell's folder of injected heads; ``method`` is ``<method>-<variant>``."""
    names = (dataset, backbone, head, descriptor, method)
    return results(experiment).joinpath("cells", *names)  # one step: there are many cells


def training(experiment: str, dataset: str, backbone: str, head: str, descriptor: str) -> Path:
    """Return the folder of trainings that several cells of a place begin with."""
    return results(experiment).joinpath("trainings", dataset, backbone, head, descriptor)


def history(head: Path) -> Path:
    """Return the training history beside an injected head."""
    return head.with_suffix(".history.parquet")


def injection(
    experiment: str, dataset: str, backbone: str, head: str, descriptor: str, method: str
) -> Path:
    """Return the manifest of a cell's injected heads, written last."""
    return cell(experiment, dataset, backbone, head, descriptor, method) / "injection.json"


def cell_metrics(
    experiment: str, dataset: str, backbone: str, head: str, descriptor: str, method: str
) -> Path:
    """Return a cell's metrics: a row is a (seed, metric)."""
    folder = cell(experiment, dataset, backbone, head, descriptor, method)
    return folder.parent / f"{folder.name}.parquet"


def batch(
    experiment: str, dataset: str, backbone: str, head: str, descriptor: str, number: str
) -> Path:
    """Return the record that the cells of a batch are there, written last."""
    names = (dataset, backbone, head, descriptor, f"{number}.json")
    return results(experiment).joinpath("batches", *names)


def failures(
    experiment: str, dataset: str, backbone: str, head: str, descriptor: str, method: str
) -> Path:
    """Return the file that says how many runs of a cell some seed failed in."""
    return cell(experiment, dataset, backbone, head, descriptor, method) / "failures"


def curves(
    experiment: str, dataset: str, backbone: str, head: str, descriptor: str, method: str
) -> Path:
    """Return a cell's seen-unseen curves: a row is a (seed, point)."""
    folder = cell(experiment, dataset, backbone, head, descriptor, method)
    return folder / "curves.parquet"


def classes(
    experiment: str, dataset: str, backbone: str, head: str, descriptor: str, method: str
) -> Path:
    """Return a cell's accuracies of single classes: a row is a (seed, class)."""
    folder = cell(experiment, dataset, backbone, head, descriptor, method)
    return folder / "classes.parquet"


def metrics(experiment: str) -> Path:
    """Return all metrics of an experiment, long format."""
    return results(experiment) / "metrics.parquet"


def headline(experiment: str) -> Path:
    """Return the headline numbers as JSON, for ``dvc metrics show``."""
    return results(experiment) / "metrics.json"


def table(experiment: str, table: str, suffix: str) -> Path:
    """Return a table in one of its formats."""
    return results(experiment) / "tables" / f"{table}.{suffix}"


def differences(experiment: str, table: str, suffix: str) -> Path:
    """Return the paired differences between a table's methods in one of their formats."""
    return results(experiment) / "tables" / f"{table}.differences.{suffix}"


def complete(experiment: str, table: str) -> Path:
    """Return the mark that no cell of a table failed."""
    return results(experiment) / "tables" / f"{table}.complete"


def figure(experiment: str, table: str, kind: str, suffix: str) -> Path:
    """Return a figure of a table in one of its formats."""
    return results(experiment) / "figures" / f"{table}.{kind}.{suffix}"


def sources(experiment: str) -> Path:
    """Return the record of what an experiment fetched: sizes and hashes."""
    return results(experiment) / "sources.json"


def tracked(experiment: str) -> Path:
    """Return the receipt of what was logged to MLflow."""
    return results(experiment) / "mlflow.json"


def tracked_experiment(experiment: str) -> Path:
    """Return the experiment as it was last to be logged, so that this can be done later."""
    return results(experiment) / "experiment.json"


def track_failures(experiment: str) -> Path:
    """Return the file that says how many runs of the rule ``track`` found no store."""
    return results(experiment) / "mlflow.failures"


def resolved(experiment: str) -> Path:
    """Return the validated experiment with every override applied, read by all jobs."""
    return Path(".snakemake/icis") / f"{experiment}.json"


def code_facts() -> Path:
    """Return what was found of the package's modules, so that they are parsed once."""
    return Path(".snakemake/icis/code.json")


def log(experiment: str, step: str, *names: str) -> Path:
    """Return a rule's log file."""
    return Path("logs") / experiment / step / f"{'/'.join(names) or step}.log"


def benchmark(experiment: str, step: str, *names: str) -> Path:
    """Return a rule's record of time and memory."""
    return log(experiment, step, *names).with_suffix(".benchmark.tsv")


def downloads() -> Path:
    """Return the folder of downloads under way, a folder a source."""
    return Path("data/downloads")


def fetched(source: str) -> Path:
    """Return the folder of a source's files, unpacked."""
    return Path("data/fetched") / source


def manifest(source: str) -> Path:
    """Return the list of a source's files: a row is a file."""
    return Path("data/fetched") / f"{source}.files.parquet"


def receipt(source: str) -> Path:
    """Return the mark that a source was fetched whole, written last."""
    return Path("data/fetched") / f"{source}.json"


def first_seen() -> Path:
    """Return the hashes of files without a published one, as they were first fetched."""
    return Path("data/first-seen.json")
