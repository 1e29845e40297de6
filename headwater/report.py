"""`headwater report`: what the shop sold and what its data is worth, on one page to look at.

By DuckDB over files of Gold, of Silver's outcomes and of the scores of the quality gate, without a
JVM. The page stands alone: no server, no network. Nobody's name, address or words are on it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import click

from lakehouse.command import settings_options
from lakehouse.errors import HeadwaterError, TableError

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from duckdb import DuckDBPyConnection

    from lakehouse.contracts import Contracts
    from lakehouse.layouts import Layouts
    from lakehouse.settings import Settings
    from lakehouse.tables import Table

# Of what there are many, so many are drawn: the largest.
SHOWN = 12
# Of cohorts, and of the months after each: an order of another century makes no thousand of them.
MONTHS = 24
# States that an order goes through, each after the one before.
STATES = ("placed", "paid", "shipped", "delivered")

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Headwater: report</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1100px; padding: 1.5rem;
       color: #1f2933; background: #fff }
h1 { margin: 0 } h2 { margin: 2.5rem 0 .5rem; font-size: 1.2rem }
.made, .none { color: #616e7c }
.tiles { display: flex; flex-wrap: wrap; gap: 1rem; margin-top: 1.5rem }
.tile { background: #f0f4f8; border-radius: 8px; padding: .75rem 1.25rem; min-width: 8rem }
.tile b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums }
</style>
</head>
<body>
<h1>Headwater</h1>
<div class="made">$made</div>
<div class="tiles">$tiles</div>
$sections
</body>
</html>
""")


@click.command("report")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write.  [default: report.html in the data folder]",
)
@settings_options
def report(out: Path | None, settings: Settings) -> None:
    """Draw what was sold and what the data is worth, as one HTML page that stands alone."""
    from lakehouse import contracts, layouts
    from lakehouse.progress import doing

    loaded = contracts.load(settings.contracts_dir)
    known = layouts.load(settings.contracts_dir, loaded)
    out = out or settings.runtime_dir / "report.html"
    with doing("drawing the report"):
        page = draw(settings, loaded, known)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page, encoding="utf-8")
    click.echo(f"report: {out}")


def draw(settings: Settings, contracts: Contracts, layouts: Layouts) -> str:
    """The page. Raises TableError where Gold was not built yet, HeadwaterError without plotly."""
    try:
        import plotly  # noqa: F401
    except ImportError as error:
        raise HeadwaterError(
            f"the report cannot be drawn: {error}: install headwater[report]"
        ) from None
    database = opened(settings, contracts, layouts)
    tiles = "".join(
        f'<div class="tile"><b>{escape(value)}</b>{escape(name)}</div>'
        for name, value in _tiles(database)
    )
    sections: list[str] = []
    for title, make in SECTIONS.items():
        figure = make(database)
        drawn = '<p class="none">Nothing to draw yet.</p>'
        if figure is not None:
            figure.update_layout(
                template="plotly_white", margin={"l": 60, "r": 20, "t": 20, "b": 50}, height=380
            )
            # The library itself stands in the page once.
            first = not any("plotly" in section for section in sections)
            drawn = figure.to_html(full_html=False, include_plotlyjs=first)
        sections.append(f"<h2>{escape(title)}</h2>\n{drawn}")
    made = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, from {settings.tables}"
    return PAGE.substitute(made=escape(made), tiles=tiles, sections="\n".join(sections))


def opened(settings: Settings, contracts: Contracts, layouts: Layouts) -> DuckDBPyConnection:
    """A database with the columns that are drawn, as views: sales, orders, places, categories,
    quality, outcomes, order_events, views and carts."""
    import duckdb
    import pyarrow as pa

    from lakehouse import arrow, tables

    database = duckdb.connect()
    database.execute("SET TimeZone = 'UTC'")

    def put(view: str, table: Table, *columns: str) -> None:
        if arrow.open_table(settings, table) is None:
            raise TableError(
                f"no table {table.full_name} at {table.path(settings)}: `headwater gold` and "
                "`headwater quality` make what is reported"
            )
        database.register(view, arrow.content(settings, table, list(columns)))

    def put_nothing(view: str, **kinds: pa.DataType) -> None:
        database.register(view, pa.schema(list(kinds.items())).empty_table())

    silver = tables.silver(contracts)
    put("outcomes", silver, "date", "outcome", "violations")
    for view, entity, fields in (
        ("order_events", "order", ("order_id", "status")),
        ("views", "page_view", ("session_id",)),
        ("carts", "cart", ("cart_id",)),
    ):
        if entity in contracts:
            put(view, silver, *(f"{entity}.{field}" for field in fields))
        else:
            put_nothing(view, **dict.fromkeys(fields, pa.string()))

    def gold(name: str) -> Table:
        return tables.gold(layouts[f"gold.{name}"])

    metrics = ("category_id", "sales_date", "currency", "revenue", "units")
    reported = "reporting_currency"
    put("sales", gold("agg_category_metrics"), *metrics, reported, "reporting_revenue")
    if "gold.dim_category" in layouts:
        put("categories", gold("dim_category"), "category_id", "name")
    else:
        put_nothing("categories", category_id=pa.string(), name=pa.string())
    facts = ("order_id", "customer_id", "placed_at", "location_key", "status")
    put("orders", gold("fact_orders"), *facts, reported, "reporting_total")
    put("places", gold("dim_location"), "location_key", "country_code")
    if arrow.open_table(settings, tables.quality()) is not None:
        put("quality", tables.quality(), "checked_at", "table", "score")
    else:
        at = pa.timestamp("us", "UTC")
        put_nothing("quality", checked_at=at, table=pa.string(), score=pa.float64())
    return database


def _tiles(database: DuckDBPyConnection) -> list[tuple[str, str]]:
    [(orders, customers)] = database.sql(
        "SELECT count(*), count(DISTINCT customer_id) FROM orders"
    ).fetchall()
    [(accepted, quarantined)] = database.sql(
        "SELECT count(*) FILTER (outcome = 'accepted'), count(*) FILTER (outcome = 'quarantined') "
        "FROM outcomes"
    ).fetchall()
    [(unpriced,)] = database.sql(
        "SELECT count(*) FROM orders WHERE reporting_total IS NULL"
    ).fetchall()
    revenue = database.sql(
        "SELECT currency, sum(revenue) FROM sales GROUP BY currency ORDER BY 2 DESC"
    ).fetchall()
    return [
        *((f"revenue, {currency}", f"{amount:,.2f}") for currency, amount in revenue),
        ("orders", f"{orders:,}"),
        # Whose currency has no rate: in no sum of the reporting currency.
        *([("orders without a rate", f"{unpriced:,}")] if unpriced else []),
        ("customers who ordered", f"{customers:,}"),
        ("events accepted", f"{accepted:,}"),
        ("records quarantined", f"{quarantined:,}"),
    ]


def _revenue(database: DuckDBPyConnection) -> go.Figure | None:
    return _lines(
        database.sql(
            "SELECT sales_date, sum(revenue)::DOUBLE, currency FROM sales "
            "GROUP BY ALL ORDER BY sales_date, currency"
        ).fetchall(),
        "revenue a day",
    )


def _categories(database: DuckDBPyConnection) -> go.Figure | None:
    return _bars(
        database.sql(
            f"""SELECT coalesce(any_value(name), '') || ' (' || category_id || ')',
            sum(reporting_revenue)::DOUBLE, reporting_currency
            FROM sales LEFT JOIN categories USING (category_id) WHERE reporting_revenue IS NOT NULL
            GROUP BY category_id, reporting_currency ORDER BY 2 DESC, 1 LIMIT {SHOWN}"""
        ).fetchall(),
        "revenue in the reporting currency",
    )


def _places(database: DuckDBPyConnection) -> go.Figure | None:
    """By where orders go: those whose money stayed."""
    from batch.star.facts import LOST

    lost = ", ".join(f"'{state}'" for state in LOST)
    return _bars(
        database.sql(
            f"""SELECT coalesce(country_code, 'unknown'), sum(reporting_total)::DOUBLE,
            reporting_currency FROM orders LEFT JOIN places USING (location_key)
            WHERE (status IS NULL OR status NOT IN ({lost})) AND reporting_total IS NOT NULL
            GROUP BY ALL ORDER BY 2 DESC, 1 LIMIT {SHOWN}"""
        ).fetchall(),
        "total of orders in the reporting currency",
    )


def _funnel(database: DuckDBPyConnection) -> go.Figure | None:
    """How far it goes from looking to having: of orders, those that were ever in a state."""
    import plotly.graph_objects as go

    def count(column: str, view: str, where: str = "true") -> int:
        said = f"SELECT count(DISTINCT {column}) FROM {view} WHERE {where}"
        return int(database.sql(said).fetchall()[0][0])

    steps = {
        "visits": count("session_id", "views"),
        "carts": count("cart_id", "carts"),
        **{f"orders {s}": count("order_id", "order_events", f"status = '{s}'") for s in STATES},
    }
    if not any(steps.values()):
        return None
    return go.Figure(go.Funnel(y=list(steps), x=list(steps.values()), textinfo="value"))


def _cohorts(database: DuckDBPyConnection) -> go.Figure | None:
    """Of the customers who first ordered in a month, the share who ordered in each month after."""
    import plotly.graph_objects as go

    rows = database.sql(
        """WITH months AS (
            SELECT DISTINCT customer_id, date_trunc('month', placed_at)::DATE AS month FROM orders
        ), firsts AS (
            SELECT customer_id, min(month) AS cohort FROM months GROUP BY customer_id
        ), sizes AS (SELECT cohort, count(*) AS size FROM firsts GROUP BY cohort)
        SELECT cohort, datediff('month', cohort, month) AS later, count(*) / any_value(size)
        FROM months JOIN firsts USING (customer_id) JOIN sizes USING (cohort)
        GROUP BY cohort, later ORDER BY cohort, later"""
    ).fetchall()
    if not rows:
        return None
    cohorts = sorted({row[0] for row in rows})[-MONTHS:]
    last = min(MONTHS, max(later for cohort, later, _ in rows if cohort in cohorts))
    share = {(cohort, later): value for cohort, later, value in rows}
    return go.Figure(
        go.Heatmap(
            z=[[share.get((cohort, later)) for later in range(last + 1)] for cohort in cohorts],
            x=list(range(last + 1)),
            y=[f"{cohort:%Y-%m}" for cohort in cohorts],
            colorscale="Blues",
            zmin=0,
            zmax=1,
            texttemplate="%{z:.0%}",
        ),
        {
            "xaxis": {"title": "months after the first order", "dtick": 1},
            "yaxis": {"type": "category", "autorange": "reversed"},
        },
    )


def _scores(database: DuckDBPyConnection) -> go.Figure | None:
    return _lines(
        database.sql(
            'SELECT checked_at::TIMESTAMP, score, "table" FROM quality ORDER BY 1, 3'
        ).fetchall(),
        "score of 100",
    )


def _quarantine(database: DuckDBPyConnection) -> go.Figure | None:
    rows = database.sql(
        f"""WITH broken AS (
            SELECT date, unnest(violations) AS rule FROM outcomes WHERE outcome = 'quarantined'
        ), most AS (
            SELECT rule FROM broken GROUP BY rule ORDER BY count(*) DESC, rule LIMIT {SHOWN}
        )
        SELECT date, count(*), CASE WHEN rule IN (FROM most) THEN rule ELSE 'others' END
        FROM broken GROUP BY ALL ORDER BY 1, 3"""
    ).fetchall()
    # What stands for many comes last.
    return _bars(sorted(rows, key=lambda row: row[2] == "others"), "records a day", "date")


def _lines(rows: list[tuple[Any, ...]], unit: str) -> go.Figure | None:
    """rows: x, y, and the line that the point is on."""
    import plotly.graph_objects as go

    if not rows:
        return None
    figure = go.Figure(layout={"yaxis": {"title": unit, "rangemode": "tozero"}})
    for name, points in _by_name(rows).items():
        x, y = zip(*points, strict=True)
        figure.add_scatter(x=x, y=y, name=name, mode="lines+markers")
    return figure


def _bars(rows: list[tuple[Any, ...]], unit: str, axis: str = "category") -> go.Figure | None:
    """rows: x, y, and the colour of the bar. axis: what kind of thing x is."""
    import plotly.graph_objects as go

    if not rows:
        return None
    layout = {"yaxis": {"title": unit}, "xaxis": {"type": axis}, "barmode": "stack"}
    figure = go.Figure(layout=layout)
    for name, points in _by_name(rows).items():
        x, y = zip(*points, strict=True)
        figure.add_bar(x=x, y=y, name=name)
    return figure


def _by_name(rows: list[tuple[Any, ...]]) -> dict[str, list[tuple[Any, Any]]]:
    found: dict[str, list[tuple[Any, Any]]] = {}
    for x, y, name in rows:
        found.setdefault(str(name), []).append((x, y))
    return found


SECTIONS: dict[str, Callable[[DuckDBPyConnection], go.Figure | None]] = {
    "Revenue over time": _revenue,
    "Revenue by category": _categories,
    "Orders by country": _places,
    "From a visit to a delivered order": _funnel,
    "Customers who came back, by month of their first order": _cohorts,
    "Quality of Gold's tables over time": _scores,
    "Quarantined records by rule and day": _quarantine,
}
