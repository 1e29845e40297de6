"""The quality gate: Gold held against its contracts, by Great Expectations, before it is published.

Every table gets a score, kept in ops.quality: over all that is expected of it, the mean share of
rows that meet it, 0 to 100. What breaks a critical expectation keeps all of Gold from the
warehouses. Row counts and means that are unlike their own past are told, and keep nothing back.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lakehouse.command import run, settings_options
from lakehouse.errors import QualityError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from batch.suites import Expectation, Suite
    from lakehouse.layouts import Layout, Layouts
    from lakehouse.settings import Settings
    from lakehouse.tables import Version

JOB = "quality"
# In pandas up to there: eight expectations on 100,000 rows took 0.2 s there, and 2.5 s on Spark.
PANDAS_ROWS = 500_000
EXAMPLES = 10
PAST = 100
Say = Callable[[str], None]


@dataclass
class Broken:
    """An expectation that is not met. rows: how many break it; examples: keys of some of them."""

    what: str
    critical: bool
    rows: int
    examples: list[str] = field(default_factory=list)


@dataclass
class Checked:
    """One version of a table, as it was found. committed: when the version was, ms since 1970."""

    table: str
    version: int
    committed: int
    suite: str
    rows: int
    expectations: int
    score: float
    broken: list[Broken]
    metrics: dict[str, float]
    anomalies: list[str]

    @property
    def critical(self) -> list[Broken]:
        return [each for each in self.broken if each.critical]


def pages(settings: Settings) -> Path:
    """The folder of the Data Docs, where no other one is asked for."""
    return settings.runtime_dir / "quality"


@click.command("quality")
@click.argument("names", metavar="[TABLE]...", nargs=-1)
@click.option(
    "--docs",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the Data Docs.  [default: quality in the data folder]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@settings_options
def quality(names: tuple[str, ...], docs: Path | None, as_json: bool, settings: Settings) -> None:
    """Hold tables of Gold against their contracts. Exit code 1 where that keeps them unpublished.

    TABLE: full names such as gold.fact_orders; all of Gold where left out.
    """
    from lakehouse import contracts, layouts
    from lakehouse.locks import held
    from lakehouse.progress import Ticker, doing
    from lakehouse.session import spark as make_session

    known = layouts.load(settings.contracts_dir, contracts.load(settings.contracts_dir))
    there = [layout.full_name for layout in known.gold]
    if unknown := sorted(set(names) - set(there)):
        raise click.BadParameter(f"{', '.join(unknown)}: there are {', '.join(there)}")
    docs = docs or pages(settings)
    with held(settings, JOB, "ops.quality (job quality)"):
        with doing("starting Spark"):
            spark = make_session(settings, JOB)
        with doing("checking Gold"), Ticker() as ticker:
            checked = check(spark, settings, known, names, docs, ticker.show)
    if as_json:
        click.echo(json.dumps([asdict(each) for each in checked]))
    else:
        show(checked)
        click.echo(f"Data Docs: {docs / 'index.html'}")
    refuse(checked)


def show(checked: list[Checked]) -> None:
    """Scores as a table on stdout, and below it what is broken or unusual."""
    from rich.console import Console
    from rich.table import Table as Grid

    grid = Grid("table", "version", "rows", "expectations", "broken", "score", title="Quality")
    for one in checked:
        numbers = (one.version, one.rows, one.expectations, len(one.broken))
        grid.add_row(one.table, *(f"{number:,}" for number in numbers), f"{one.score:.2f}")
    Console().print(grid)
    for one in checked:
        for broken in one.broken:
            kind = "critical" if broken.critical else "warning"
            click.echo(f"{kind}: {_said(one, broken)}")
    for line in unusual(checked):
        click.echo(line)


def _said(one: Checked, broken: Broken) -> str:
    keys = f": {', '.join(broken.examples)}" if broken.examples else ""
    more = " …" if broken.rows > len(broken.examples) > 0 else ""
    where = f"{one.table} version {one.version}"
    return f"{where}: {broken.what}: {broken.rows:,} rows break it{keys}{more}"


def refuse(checked: Iterable[Checked]) -> None:
    """Raises QualityError where something critical is broken."""
    said = [_said(one, broken) for one in checked for broken in one.critical]
    if said:
        raise QualityError(
            f"{'; '.join(said)}. Nothing is published before that is put right: correct the events "
            "(`headwater quarantine`, `headwater replay`) or the contract under conf/contracts/"
            "tables, then `headwater gold --rebuild`"
        )


def demand(
    spark: SparkSession,
    settings: Settings,
    layouts: Layouts,
    newest: Mapping[str, Version],
    say: Say = lambda _: None,
) -> list[str]:
    """Raises QualityError where something critical is broken in the newest of these versions.

    newest: as `newest_of` has them. A version that passed before is not looked at again, unless
    something else is expected of it now. Returns what is unusual about the others, a line each.
    """
    passed = {
        (row.table, row.version, row.committed, row.suite)
        for row in _past(spark, settings)
        if not any(broken.critical for broken in row.broken)
    }
    unknown = []
    for layout in layouts.gold:
        suite = _suite(layout).fingerprint
        if (layout.full_name, *newest[layout.full_name], suite) not in passed:
            unknown.append(layout.full_name)
    if not unknown:
        return []
    checked = check(spark, settings, layouts, tuple(unknown), pages(settings), say, newest)
    refuse(checked)
    return unusual(checked)


def unusual(checked: Iterable[Checked]) -> list[str]:
    """What is unlike its own past, a line each."""
    return [f"unusual: {one.table}: {line}" for one in checked for line in one.anomalies]


def check(
    spark: SparkSession,
    settings: Settings,
    layouts: Layouts,
    names: tuple[str, ...] = (),
    docs: Path | None = None,
    say: Say = lambda _: None,
    newest: Mapping[str, Version] | None = None,
) -> list[Checked]:
    """Checks the newest versions of tables of Gold (all for none), and keeps what came of it.

    docs: the folder for Data Docs of it; none are written where left out. newest: as `newest_of`
    has them, where they are known. Raises TableError where a table is missing.
    """
    from lakehouse import runs

    wanted = [layout for layout in layouts.gold if not names or layout.full_name in names]
    with runs.recorded(spark, settings, JOB) as run:
        if newest is None:
            newest = newest_of(spark, settings, layouts)
        run.read = {layout.full_name: newest[layout.full_name].number for layout in wanted}
        past = _past(spark, settings)

        with ThreadPoolExecutor(1) as pool:
            pool.submit(load)
            parts = _fetch(spark, settings, layouts, wanted, newest, say)
        results = validated(parts, docs, say)
        checked = []
        for suite, frame, outcome in results:
            name = suite.layout.full_name
            # A version that was checked again is one of the past all the same; this one is none.
            before = {(row.version, row.committed): row for row in past if row.table == name}
            before.pop((newest[name].number, newest[name].committed), None)
            checked.append(_judged(suite, frame, outcome, newest[name], list(before.values())))
        _keep(spark, settings, checked)
        run.rows = sum(one.rows for one in checked)
        scores = {one.table: one.score for one in checked}
        run.details = {
            "score": round(sum(scores.values()) / len(scores), 2) if scores else None,
            "scores": scores,
            "critical": sum(len(one.critical) for one in checked),
        }
    return checked


def _suite(layout: Layout) -> Suite:
    from batch.suites import suite_of

    return suite_of(layout)


def newest_of(spark: SparkSession, settings: Settings, layouts: Layouts) -> dict[str, Version]:
    """The newest version of each of Gold's tables. Raises TableError where one is missing."""
    from lakehouse import tables
    from lakehouse.session import side_by_side

    def of_table(layout: Layout) -> Version:
        return tables.newest(spark, settings, tables.gold(layout))

    # What refers to others first: beside a running Gold, which writes these others first, it finds
    # them.
    referring = [layout for layout in layouts.gold if _suite(layout).references]
    others = [layout for layout in layouts.gold if layout not in referring]
    found: dict[str, Version] = {}
    for part in (referring, others):
        names = (layout.full_name for layout in part)
        found |= dict(zip(names, side_by_side(of_table, part), strict=True))
    return found


def _past(spark: SparkSession, settings: Settings) -> list[Any]:
    """The newest rows of ops.quality, the oldest of these first."""
    from delta.tables import DeltaTable
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    from lakehouse import tables

    table = tables.quality()
    if not DeltaTable.isDeltaTable(spark, table.path(settings)):
        return []
    newest = F.row_number().over(Window.partitionBy("table").orderBy(F.col("checked_at").desc()))
    rows = tables.read(spark, settings, table).withColumn("newest", newest)
    return rows.where(f"newest <= {PAST}").orderBy("checked_at").collect()


def _fetch(
    spark: SparkSession,
    settings: Settings,
    layouts: Layouts,
    wanted: list[Layout],
    newest: Mapping[str, Version],
    say: Say,
) -> list[tuple[Suite, Any]]:
    """The tables' suites, and their rows with what only a suite asks for: in pandas where they,
    and what they refer to, fit."""
    import pandas as pd

    from lakehouse import tables
    from lakehouse.session import side_by_side

    def read(layout: Layout) -> DataFrame:
        rows = tables.read_gold(spark, settings, layout, newest[layout.full_name].number)
        return rows if layout in wanted else rows.select(*layout.primary_key)

    def fetched(layout: Layout) -> pd.DataFrame | None:
        say(f"reading {layout.full_name}")
        found = read(layout).limit(PANDAS_ROWS + 1).toArrow()
        if found.num_rows > PANDAS_ROWS:
            return None
        frame: pd.DataFrame = found.to_pandas(types_mapper=pd.ArrowDtype)
        return frame

    def of_table(layout: Layout) -> tuple[Suite, Any]:
        suite = _suite(layout)
        referenced = [of_gold[name] for name in suite.references.values()]
        small = all(in_pandas[one.name] is not None for one in (layout, *referenced))

        def rows_of(one: Layout) -> Any:
            return in_pandas[one.name] if small else read(one)

        keys = {one.name: rows_of(one)[list(one.primary_key)] for one in referenced}
        return suite, suite.counted(suite.marked(rows_of(layout), keys))

    of_gold = {layout.name: layout for layout in layouts.gold}
    named = {name for layout in wanted for name in _suite(layout).references.values()}
    needed = [one for one in layouts.gold if one in wanted or one.name in named]
    names = (layout.name for layout in needed)
    in_pandas = dict(zip(names, side_by_side(fetched, needed), strict=True))
    return [of_table(layout) for layout in wanted]


def load() -> Any:
    """Great Expectations. The first call takes seconds, which others need not wait for. Raises
    QualityError where it is not installed."""
    try:
        import great_expectations
        import great_expectations.expectations
    except ImportError as error:
        raise QualityError(
            f"Gold cannot be checked: {error}: install headwater[quality], or check it where that "
            "is installed (`headwater quality`) before publishing"
        ) from None
    return great_expectations


def validated(
    parts: list[tuple[Suite, Any]],
    docs: Path | None,
    say: Say = lambda _: None,
    examples: int = EXAMPLES,
) -> list[tuple[Suite, Any, Any]]:
    """What Great Expectations says of each frame; its pages in `docs`.

    examples: of so many rows that break an expectation the keys are listed.
    """
    gx = load()
    from great_expectations.core.batch_definition import BatchDefinition
    from great_expectations.data_context.types.base import ProgressBarsConfig
    from pyspark.sql import DataFrame

    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    sources: dict[bool, Any] = {}
    found = []
    for suite, frame in parts:
        name = suite.layout.full_name
        say(f"checking {name}")
        on_spark = isinstance(frame, DataFrame)
        if on_spark not in sources:
            add = context.data_sources.add_spark if on_spark else context.data_sources.add_pandas
            sources[on_spark] = add("spark" if on_spark else "pandas")
        source = sources[on_spark]
        batch: BatchDefinition[Any] = source.add_dataframe_asset(
            name
        ).add_batch_definition_whole_dataframe("all rows")
        expectations = gx.ExpectationSuite(name, [_expectation(e) for e in suite.expectations])
        validation = gx.ValidationDefinition(
            name=name, data=batch, suite=context.suites.add(expectations)
        )
        form = {
            "result_format": "SUMMARY",
            # Of rows that break something their keys are told, and no value of a person.
            "exclude_unexpected_values": True,
            "unexpected_index_column_names": list(suite.layout.primary_key),
            "partial_unexpected_count": examples,
        }
        defined = context.validation_definitions.add(validation)
        with warnings.catch_warnings():
            # Of pandas, where a pattern has groups.
            warnings.simplefilter("ignore", UserWarning)
            outcome = defined.run(batch_parameters={"dataframe": frame}, result_format=form)
        found.append((suite, frame, outcome))
    if docs is not None:
        say("writing Data Docs")
        _write_docs(context, docs)
    return found


def _expectation(expectation: Expectation) -> Any:
    import great_expectations.expectations as gxe

    severity = "critical" if expectation.critical else "warning"
    return getattr(gxe, expectation.kind)(**expectation.arguments, severity=severity)


def _write_docs(context: Any, folder: Path) -> None:
    """The pages of this check, in the place of those of the last one."""
    site = {
        "class_name": "SiteBuilder",
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": {"class_name": "TupleFilesystemStoreBackend"},
    }
    with tempfile.TemporaryDirectory() as made:
        site["store_backend"]["base_directory"] = made  # type: ignore[index]
        context.add_data_docs_site(site_name="quality", site_config=site)
        context.build_data_docs(site_names=["quality"])
        for stale in ("expectations", "validations"):
            shutil.rmtree(folder / stale, ignore_errors=True)
        try:
            shutil.copytree(made, folder, dirs_exist_ok=True)
        except shutil.Error as error:
            # It lists every file: the first of them says why.
            raise OSError(error.args[0][0][2]) from None


def _judged(suite: Suite, frame: Any, outcome: Any, version: Version, past: list[Any]) -> Checked:
    """What came of one table. past: what came of earlier checks.

    Raises QualityError where an expectation could not be looked at.
    """
    from batch import anomalies

    name = suite.layout.full_name
    rows, metrics = _metrics(suite.layout, frame)
    broken, met = [], 0.0
    for result in outcome.results:
        kind, arguments = result.expectation_config.type, dict(result.expectation_config.kwargs)
        arguments.pop("batch_id", None)
        what = _what(kind, arguments)
        if result.exception_info and (raised := _raised(result.exception_info)):
            raise QualityError(f"{name}: {what} could not be looked at: {raised}")
        found = result.result
        unexpected = int(found.get("unexpected_count") or 0)
        if result.success:
            met += 1
            continue
        of_rows = "unexpected_count" in found
        met += 1 - unexpected / max(1, found["element_count"]) if of_rows else 0
        critical = str(result.expectation_config.severity.value) == "critical"
        listed = found.get("partial_unexpected_index_list") or []
        keys = _keys(suite.layout, listed)
        broken.append(Broken(what, critical, unexpected if of_rows else rows, keys))
    before = [row.metrics for row in past]
    if past:
        metrics["rows added"] = float(rows - past[-1].rows)
    unusual = anomalies.found(metrics, before)
    return Checked(
        table=name,
        version=version.number,
        committed=version.committed,
        suite=suite.fingerprint,
        rows=rows,
        expectations=len(outcome.results),
        score=round(100 * met / len(outcome.results), 2),
        broken=broken,
        metrics=metrics,
        anomalies=[
            f"{metric} is {value:,.4g}, where {usual:,.4g} is usual"
            for metric, (value, usual) in unusual.items()
        ],
    )


def _what(kind: str, arguments: dict[str, Any]) -> str:
    """An expectation in words: its name, and what it is about."""
    words = kind.removeprefix("expect_").replace("_", " ")
    columns = [arguments.pop(key) for key in ("column", "column_A", "column_B") if key in arguments]
    columns += arguments.pop("column_list", [])
    limits = {
        # A float may be a hair beside what the contract says.
        key: f"{value:.15g}" if isinstance(value, float) else value
        for key, value in arguments.items()
        if key.endswith("_value") or key in {"value_set", "regex"}
    }
    said = "".join(f" {key.replace('_', ' ')} {value}" for key, value in limits.items())
    return f"{', '.join(columns)}: {words}{said}" if columns else words


def _raised(info: dict[str, Any]) -> str | None:
    """What an expectation raised, if it did: of itself, or of one of its metrics."""
    if "raised_exception" in info:
        return str(info["exception_message"]) if info["raised_exception"] else None
    return next((str(each["exception_message"]) for each in info.values()), None)


def _keys(layout: Layout, listed: list[dict[str, Any]]) -> list[str]:
    """Primary keys of rows, as Great Expectations lists them: by row, or by column."""
    hidden = {column.name for column in layout.columns if column.pii}
    found = []
    for entry in listed:
        columns = [entry[name] for name in layout.primary_key]
        rows = zip(*columns, strict=True) if isinstance(columns[0], list) else [tuple(columns)]
        for row in rows:
            named = zip(layout.primary_key, row, strict=True)
            parts = ["***" if name in hidden else f"{value}" for name, value in named]
            found.append("/".join(parts))
    return found[:EXAMPLES]


def _metrics(layout: Layout, frame: Any) -> tuple[int, dict[str, float]]:
    """Rows, and what is looked at for anomalies: shares of missing values, means of amounts."""
    import narwhals as nw

    optional = [c.name for c in layout.columns if not c.required]
    amounts = [c.name for c in layout.columns if c.decimal is not None or c.spark_type == "double"]
    [row] = (
        nw.from_native(frame)
        .lazy()
        .select(
            nw.len().alias("rows"),
            *(nw.col(name).null_count().alias(f"missing {name}") for name in optional),
            *(nw.col(name).cast(nw.Float64).mean().alias(f"mean {name}") for name in amounts),
        )
        .collect()
        .rows(named=True)
    )
    rows = int(row.pop("rows"))
    metrics = {"rows": float(rows)}
    for name, value in row.items():
        if name.startswith("missing "):
            metrics[f"share of {name}"] = value / rows if rows else 0.0
        elif value is not None:
            metrics[name] = float(value)
    return rows, metrics


def _keep(spark: SparkSession, settings: Settings, checked: list[Checked]) -> None:
    from lakehouse import tables

    table = tables.quality()
    tables.ensure(spark, settings, table)
    now = datetime.now(UTC)
    rows = []
    for one in checked:
        row = asdict(one) | {"checked_at": now}
        # Keys of rows may be a person's: they are told, and not kept.
        row["broken"] = [(each.what, each.critical, each.rows) for each in one.broken]
        rows.append(tuple(row[name] for name in table.columns))
    schema = ", ".join(f"`{name}` {kind}" for name, kind in table.columns.items())
    if rows:
        tables.append(spark.createDataFrame(rows, schema), settings, table)


if __name__ == "__main__":
    run(quality, sys.argv[1:])
