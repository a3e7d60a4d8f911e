"""``icis data``: what there is to fetch, fetching it, and whether it is whole."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from icis.errors import IcisError

if TYPE_CHECKING:
    from icis.fetching.catalogue import Source
    from icis.fetching.condition import Damage

data_app = typer.Typer(
    name="data",
    help="Fetch the files of public data sets from their publishers, check them, find them.\n\n"
    "ICIS_MIRROR: a folder or an address with copies, as SOURCE/FILE or FILE; tried first. "
    "ICIS_CATALOGUE: a YAML file merged over the catalogue (addresses, checksums, new sources). "
    "ICIS_FETCH_TIMEOUT, ICIS_FETCH_ATTEMPTS, ICIS_FETCH_WAIT: seconds without a byte before a "
    "server counts as stalled, failures in a row before it is given up, seconds before the first "
    "new attempt.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Names = Annotated[
    list[str],
    typer.Argument(metavar="NAME...", help="Sources or benchmarks (icis data list), or all."),
]
SHOWN = 10


@data_app.command("list")
def list_() -> None:
    """List all sources with title, size and terms, and the benchmarks with their sources."""
    from icis.fetching.catalogue import read_catalogue

    catalogue = read_catalogue()
    for name, source in catalogue.sources.items():
        typer.echo(_about(name, source))
    typer.echo("Benchmarks:")
    for name, benchmark in catalogue.benchmarks.items():
        typer.echo(f"  {name}: {benchmark.title}; sources {', '.join(benchmark.sources)}")


def _about(name: str, source: Source) -> str:
    from icis.fetching.space import in_words

    size = "size not known" if source.size is None else in_words(source.size)
    lines = [f"{name}: {source.title} ({size})"]
    for text in (source.licence, source.note, source.homepage):
        lines += textwrap.wrap(
            text, 98, initial_indent="  ", subsequent_indent="  ", break_long_words=False
        )
    return "\n".join([*lines, ""])


@data_app.command("fetch")
def fetch_(
    names: Names,
    keep_archive: Annotated[
        bool, typer.Option("--keep-archive", help="Leave the archives in data/downloads.")
    ] = False,
    accept_changed: Annotated[
        bool,
        typer.Option(
            "--accept-changed",
            help="Take and record files that differ from data/first-seen.json.",
        ),
    ] = False,
) -> None:
    """Download, check and unpack sources into data/fetched/SOURCE."""
    from icis.fetching.catalogue import read_catalogue
    from icis.fetching.fetch import fetch

    catalogue = read_catalogue()
    failures = list[str]()
    wanted = catalogue.sources_of(names)
    for name in wanted:
        typer.echo(_about(name, catalogue.source(name)))
        try:
            done = fetch(
                name, keep_archive=keep_archive, accept_changed=accept_changed, say=typer.echo
            )
        except IcisError as error:
            failures.append(str(error))
            continue
        files = f"{done.receipt.n_files} files in data/fetched/{name}"
        typer.echo(f"{name}: {files}" if done.new else f"{name}: nothing to do, {files}")
        typer.echo("")
    if failures:
        raise IcisError(_failed(failures, len(wanted)))


def _failed(failures: list[str], wanted: int) -> str:
    if wanted == 1:
        return failures[0]
    return "\n\n".join([f"{len(failures)} of {wanted} sources were not fetched.", *failures])


@data_app.command("verify")
def verify_(names: Names) -> None:
    """Hash the fetched files anew; name what is missing, changed or extra."""
    from icis.fetching.catalogue import read_catalogue
    from icis.fetching.condition import verify
    from icis.fetching.receipts import read_receipt

    damaged = list[str]()
    wanted = read_catalogue().sources_of(names)
    if "all" in names:
        wanted = [name for name in wanted if read_receipt(name)]
    for name in wanted:
        damage = verify(name)
        typer.echo(f"{name}: damaged" if damage else f"{name}: whole")
        if damage:
            _show(damage)
            damaged.append(name)
    if damaged:
        raise IcisError(
            f"damaged: {', '.join(damaged)}; delete data/fetched/SOURCE.json and run "
            f"icis data fetch {' '.join(damaged)}"
        )


def _show(damage: Damage) -> None:
    for what in ("missing", "changed", "extra"):
        paths: list[str] = getattr(damage, what)
        for path in paths[:SHOWN]:
            typer.echo(f"  {what}: {path}")
        if len(paths) > SHOWN:
            typer.echo(f"  {what}: and {len(paths) - SHOWN} more")


@data_app.command("status")
def status_() -> None:
    """Say of each source whether it is fetched, partly downloaded or absent."""
    from tabulate import tabulate

    from icis.fetching.condition import status
    from icis.fetching.space import in_words

    rows = [
        (
            each.source,
            each.state,
            each.n_files or "",
            in_words(each.unpacked) if each.unpacked else "",
            in_words(each.downloaded) if each.downloaded else "",
            "not known" if each.size is None else in_words(each.size),
        )
        for each in status()
    ]
    headers = ("source", "state", "files", "unpacked", "in data/downloads", "download size")
    typer.echo(tabulate(rows, headers=headers, tablefmt="plain"))
