"""Gold as DuckDB works it out, from the bytes that were sent and from the ledger alone.

Nothing of the code under test is called: parsing, cleaning, typing, versions, keys and sums are
written out once more here, in SQL.
"""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa

from lakehouse.settings import Settings
from producer.defects import Record
from tests.helpers import table

KEY = "('0x' || substr(sha256({0}), 1, 15))::BIGINT"
VERSION = "CASE WHEN n > 1 THEN member || '|' || epoch_us(moment) ELSE member END"
CLEAN = "lower(trim({0}, ' \t'))"
DEFAULTS = {"channel": "web", "loyalty_tier": "none"}

EVENTS = """
CREATE TABLE events AS
SELECT l.entity, j->>'type' AS type, j->'data' AS d, (j->>'time')::TIMESTAMPTZ AS moment,
       b.timestamp AS sent, topic, partition, "offset"
FROM (SELECT number, decode(value)::JSON AS j FROM records) r
JOIN ledger l USING (number)
JOIN bronze b USING (topic, partition, "offset")
SEMI JOIN taken USING (topic, partition, "offset")
"""
LAST = """
row_number() OVER (PARTITION BY {0}
  ORDER BY moment DESC, sent DESC, topic DESC, partition DESC, "offset" DESC) = 1
"""

TABLES = {
    "orders": f"""
        SELECT d->>'order_id' AS order_id, d->>'customer_id' AS customer_id,
          d->>'address_id' AS address_id, d->>'store_id' AS store_id,
          coalesce({CLEAN.format("(d->>'channel')")}, 'web') AS channel,
          {CLEAN.format("(d->>'status')")} AS status, moment AS status_at,
          (d->>'placed_at')::TIMESTAMPTZ AS placed_at, (d->>'item_count')::INTEGER AS item_count,
          (d->>'subtotal')::DECIMAL(12,2) AS subtotal,
          (d->>'shipping_fee')::DECIMAL(12,2) AS shipping_fee,
          (d->>'total')::DECIMAL(12,2) AS total, d->>'currency' AS currency
        FROM events WHERE entity = 'order' QUALIFY {LAST.format("d->>'order_id'")}
    """,
    "lines": f"""
        SELECT d->>'order_id' AS order_id, (d->>'line_number')::INTEGER AS line_number,
          d->>'product_id' AS product_id, moment AS sold_at, (d->>'quantity')::INTEGER AS quantity,
          (d->>'unit_price')::DECIMAL(12,2) AS unit_price,
          (d->>'line_total')::DECIMAL(12,2) AS line_total, d->>'currency' AS currency
        FROM events WHERE entity = 'order_item'
        QUALIFY {LAST.format("d->>'order_id', d->>'line_number'")}
    """,
    "customers": f"""
        SELECT d->>'customer_id' AS member, moment, {{
          'first_name': trim(d->>'first_name'), 'last_name': trim(d->>'last_name'),
          'email': lower(trim(d->>'email')),
          'phone': regexp_replace(regexp_replace(d->>'phone', '[^0-9+]', '', 'g'), '^00', '+'),
          'birth_date': (d->>'birth_date')::DATE,
          'loyalty_tier': coalesce({CLEAN.format("(d->>'loyalty_tier')")}, 'none'),
          'address_id': d->>'address_id',
          'marketing_opt_in': coalesce((d->>'marketing_opt_in')::BOOLEAN, false)}} AS state
        FROM events WHERE entity = 'customer' QUALIFY {LAST.format("d->>'customer_id', moment")}
    """,
    "addresses": f"""
        SELECT d->>'address_id' AS member, moment, {{
          'customer_id': d->>'customer_id', 'street': d->>'street', 'city': d->>'city',
          'postal_code': d->>'postal_code', 'region': d->>'region',
          'country_code': d->>'country_code'}} AS state
        FROM events WHERE entity = 'address' QUALIFY {LAST.format("d->>'address_id', moment")}
    """,
    "stores": f"""
        SELECT d->>'store_id' AS member, moment, {{
          'name': trim(d->>'name'), 'city': trim(d->>'city'),
          'country_code': upper(trim(d->>'country_code')),
          'opened_on': (d->>'opened_on')::DATE}} AS state
        FROM events WHERE entity = 'store' QUALIFY {LAST.format("d->>'store_id', moment")}
    """,
    "payments": f"""
        SELECT d->>'payment_id' AS payment_id, d->>'order_id' AS order_id, moment AS paid_at,
          {CLEAN.format("(d->>'method')")} AS method, {CLEAN.format("(d->>'status')")} AS status,
          (d->>'amount')::DECIMAL(12,2) AS amount, d->>'currency' AS currency
        FROM events WHERE entity = 'payment' QUALIFY {LAST.format("d->>'payment_id'")}
    """,
    "counts": f"""
        SELECT d->>'store_id' AS store_id, d->>'product_id' AS product_id, moment,
          moment::DATE AS day, (d->>'quantity')::INTEGER AS quantity,
          (d->>'reorder_level')::INTEGER AS reorder_level
        FROM events WHERE entity = 'inventory'
        QUALIFY {LAST.format("d->>'store_id', d->>'product_id', moment::DATE")}
    """,
    # Every day by every pair, and of each what was counted last.
    "stock": """
        WITH pairs AS (SELECT DISTINCT store_id, product_id FROM counts),
        days AS (SELECT unnest(generate_series(min(day), max(day), INTERVAL 1 DAY))::DATE AS day
          FROM counts)
        SELECT d.day AS snapshot_date, store_id, product_id, quantity, reorder_level,
          moment AS changed_at, c.day < d.day AS is_carried
        FROM (SELECT * FROM days CROSS JOIN pairs) d
        ASOF JOIN counts c USING (store_id, product_id, day)
    """,
    "products": f"""
        SELECT d->>'product_id' AS product_id, d->>'category_id' AS category_id,
          d->>'name' AS name, d->>'brand' AS brand, (d->>'price')::DECIMAL(12,2) AS price,
          d->>'currency' AS currency, (d->>'weight_grams')::INTEGER AS weight_grams,
          coalesce((d->>'active')::BOOLEAN, true) AS active
        FROM events WHERE entity = 'product' QUALIFY {LAST.format("d->>'product_id'")}
    """,
}


def _versions(states: str, natural: str, key: str, fields: list[str], facts: str = "") -> str:
    unpacked = ", ".join(f"state.{name} AS {name}" for name in fields)
    return f"""
        WITH changed AS (
          SELECT *, lag(state) OVER w AS before, row_number() OVER w AS n FROM {states}
          WINDOW w AS (PARTITION BY member ORDER BY moment)),
        kept AS (SELECT member, moment, state FROM changed
          WHERE n = 1 OR state IS DISTINCT FROM before),
        spans AS (SELECT *, row_number() OVER w AS n, lead(moment) OVER w AS until FROM kept
          WINDOW w AS (PARTITION BY member ORDER BY moment)),
        facts AS ({facts or ORDERED.format(natural)})
        SELECT {KEY.format(VERSION)} AS {key},
          member AS {natural}, {unpacked},
          CASE WHEN n > 1 THEN moment ELSE least(moment, first) END AS effective_from,
          until AS effective_to, until IS NULL AS is_current, n IS NULL AS is_inferred
        FROM spans FULL JOIN facts USING (member)
    """


ORDERED = "SELECT {0} AS member, min(placed_at) AS first FROM orders GROUP BY ALL"


USER = ["first_name", "last_name", "email", "phone", "birth_date", "loyalty_tier", "address_id"]
PLACE = ["customer_id", "street", "city", "postal_code", "region", "country_code"]
SHOP = ["name", "city", "country_code", "opened_on"]
OF_SHOPS = """
    SELECT member, min(first) AS first FROM (
      SELECT store_id AS member, placed_at AS first FROM orders
      UNION ALL SELECT store_id, snapshot_date::TIMESTAMPTZ FROM stock) GROUP BY ALL
"""
FORCE = "{0} >= {1}.effective_from AND ({1}.effective_to IS NULL OR {0} < {1}.effective_to)"
BOUNDS = [100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000, 600_000, 3_600_000]
BOUNDS += [86_400_000]
# All that the shop sells is in the currency that is reported in.
RATE = "'EUR' AS reporting_currency, 1::DECIMAL(18,8) AS reporting_rate"
ENDED = "(snapshot_date + INTERVAL 1 DAY - INTERVAL 1 MICROSECOND)::TIMESTAMPTZ"
HOUR = "strftime({0}, '%Y%m%d%H')::BIGINT"
STAYED = "coalesce({0} NOT IN ('cancelled', 'returned'), true)"

GOLD = {
    "dim_users": _versions("customers", "customer_id", "user_key", [*USER, "marketing_opt_in"]),
    "dim_location": _versions("addresses", "address_id", "location_key", PLACE),
    "dim_store": _versions("stores", "store_id", "store_key", SHOP, OF_SHOPS),
    "dim_product": f"""
        SELECT {KEY.format("product_id")} AS product_key, product_id, p.* EXCLUDE (product_id),
          p.name IS NULL AS is_inferred
        FROM products p FULL JOIN (
          SELECT product_id FROM lines UNION SELECT product_id FROM stock) USING (product_id)
    """,
    "dim_category": f"""
        SELECT {KEY.format("d->>'category_id'")} AS category_key,
          d->>'category_id' AS category_id, trim(d->>'name') AS name,
          d->>'parent_id' AS parent_id, false AS is_inferred
        FROM events WHERE entity = 'category' QUALIFY {LAST.format("d->>'category_id'")}
    """,
    "years": """
        SELECT year(placed_at) AS y FROM orders UNION SELECT year(sold_at) FROM lines
        UNION SELECT year(paid_at) FROM payments UNION SELECT year(snapshot_date) FROM stock
    """,
    "dim_time": f"""
        WITH hours AS (SELECT y, unnest(generate_series(make_timestamp(y, 1, 1, 0, 0, 0),
          make_timestamp(y, 12, 31, 23, 0, 0), INTERVAL 1 HOUR)) AS h FROM years)
        SELECT {HOUR.format("h")} AS time_key, h::TIMESTAMPTZ AS starts_at, h::DATE AS day,
          y::INTEGER AS year, quarter(h)::INTEGER AS quarter, month(h)::INTEGER AS month,
          day(h)::INTEGER AS day_of_month, hour(h)::INTEGER AS hour, week(h)::INTEGER AS iso_week,
          isodow(h)::INTEGER AS day_of_week, isodow(h) > 5 AS is_weekend FROM hours
    """,
    "dim_date": """
        WITH days AS (SELECT y, unnest(generate_series(make_date(y, 1, 1), make_date(y, 12, 31),
          INTERVAL 1 DAY))::DATE AS day FROM years)
        SELECT strftime(day, '%Y%m%d')::INTEGER AS date_key, day, y::INTEGER AS year,
          quarter(day)::INTEGER AS quarter, month(day)::INTEGER AS month,
          day(day)::INTEGER AS day_of_month, dayofyear(day)::INTEGER AS day_of_year,
          isoyear(day)::INTEGER AS iso_year, week(day)::INTEGER AS iso_week,
          isodow(day)::INTEGER AS day_of_week, isodow(day) > 5 AS is_weekend,
          last_day(day) = day AS is_month_end, y::INTEGER AS fiscal_year,
          quarter(day)::INTEGER AS fiscal_quarter, month(day)::INTEGER AS fiscal_month FROM days
    """,
    "fact_orders": f"""
        SELECT order_id, date_trunc('month', placed_at)::DATE AS order_month, u.user_key,
          l.location_key, s.store_key, {HOUR.format("placed_at")} AS time_key, o.customer_id,
          o.address_id, o.store_id, channel, status, status_at, placed_at, item_count, subtotal,
          CASE status WHEN 'cancelled' THEN status_at END AS cancelled_at,
          CASE status WHEN 'returned' THEN status_at END AS returned_at, shipping_fee, total,
          CASE WHEN status IN ('cancelled', 'returned') THEN 0 ELSE total END::DECIMAL(12,2)
            AS net_total, currency, {RATE}, total::DECIMAL(18,2) AS reporting_total,
          net_total::DECIMAL(18,2) AS reporting_net_total
        FROM orders o
        JOIN dim_store s ON s.store_id = o.store_id AND {FORCE.format("placed_at", "s")}
        JOIN dim_users u ON u.customer_id = o.customer_id AND {FORCE.format("placed_at", "u")}
        JOIN dim_location l ON l.address_id = o.address_id AND {FORCE.format("placed_at", "l")}
    """,
    "fact_order_items": f"""
        SELECT order_id, line_number, date_trunc('month', sold_at)::DATE AS sold_month,
          {KEY.format("product_id")} AS product_key, o.user_key,
          {HOUR.format("sold_at")} AS time_key, product_id, o.status AS order_status, sold_at,
          quantity, unit_price, line_total, l.currency,
          CASE o.status WHEN 'cancelled' THEN quantity ELSE 0 END::INTEGER AS cancelled_quantity,
          CASE o.status WHEN 'returned' THEN quantity ELSE 0 END::INTEGER AS returned_quantity,
          CASE WHEN {STAYED.format("o.status")} THEN line_total ELSE 0 END::DECIMAL(12,2)
            AS net_total, {RATE}, line_total::DECIMAL(18,2) AS reporting_line_total,
          CASE WHEN {STAYED.format("o.status")} THEN line_total ELSE 0 END::DECIMAL(18,2)
            AS reporting_net_total
        FROM lines l LEFT JOIN fact_orders o USING (order_id)
    """,
    "fact_payments": f"""
        SELECT payment_id, date_trunc('month', paid_at)::DATE AS paid_month, order_id, o.user_key,
          {HOUR.format("paid_at")} AS time_key, method, p.status, paid_at, amount,
          (amount * CASE p.status WHEN 'captured' THEN 1 WHEN 'refunded' THEN -1 ELSE 0 END)
            ::DECIMAL(12,2) AS net_amount, p.currency, {RATE},
          (amount * CASE p.status WHEN 'captured' THEN 1 WHEN 'refunded' THEN -1 ELSE 0 END)
            ::DECIMAL(18,2) AS reporting_net_amount
        FROM payments p LEFT JOIN fact_orders o USING (order_id)
    """,
    "fact_inventory": f"""
        SELECT snapshot_date, t.store_id, product_id,
          date_trunc('month', snapshot_date)::DATE AS snapshot_month, s.store_key,
          {KEY.format("product_id")} AS product_key, quantity, reorder_level, changed_at, is_carried
        FROM stock t JOIN dim_store s ON s.store_id = t.store_id
          AND {FORCE.format(ENDED, "s")}
    """,
    "agg_user_metrics": f"""
        SELECT customer_id, currency, min(u.user_key) AS user_key, count(*) AS orders,
          count(*) FILTER (NOT {STAYED.format("status")}) AS lost_orders,
          sum(item_count)::BIGINT AS items, sum(total)::DECIMAL(18,2) AS gross,
          coalesce(sum(total) FILTER ({STAYED.format("status")}), 0)::DECIMAL(18,2) AS revenue,
          min(placed_at) AS first_order_at, max(placed_at) AS last_order_at,
          'EUR' AS reporting_currency, revenue AS reporting_revenue
        FROM fact_orders JOIN (SELECT customer_id, user_key FROM dim_users WHERE is_current) u
          USING (customer_id) GROUP BY ALL
    """,
    "agg_category_metrics": f"""
        SELECT coalesce(category_id, 'unknown') AS category_id, sold_at::DATE AS sales_date,
          i.currency, count(DISTINCT order_id) AS orders, sum(quantity)::BIGINT AS units,
          sum(line_total)::DECIMAL(18,2) AS gross,
          coalesce(sum(line_total) FILTER ({STAYED.format("order_status")}), 0)::DECIMAL(18,2)
            AS revenue, 'EUR' AS reporting_currency, revenue AS reporting_revenue
        FROM fact_order_items i JOIN dim_product USING (product_id) GROUP BY ALL
    """,
    "latencies": f"""
        SELECT date_trunc('hour', moment) AS hour, type,
          coalesce(upper({CLEAN.format("(d->>'country_code')")}), 'unknown') AS region,
          CASE entity WHEN 'payment' THEN d->>'currency' ELSE 'XXX' END AS currency,
          greatest(0, epoch_ms(sent) - epoch_ms(moment)) AS late,
          CASE entity WHEN 'payment' THEN (d->>'amount')::DECIMAL(12,2)
            * CASE {CLEAN.format("(d->>'status')")} WHEN 'captured' THEN 1 WHEN 'refunded' THEN -1
              ELSE 0 END END AS net
        FROM events
    """,
    "agg_hourly_metrics": f"""
        WITH bounds AS (SELECT unnest({BOUNDS}) AS bound),
        watermark AS (SELECT max(least(moment, sent)) - INTERVAL 10 MINUTE AS passed FROM events),
        hours AS (
          SELECT hour, type, region, currency, count(*) AS events, sum(late)::BIGINT AS sum_ms,
            list_sort(list(late))[(count(*) * 95 + 99) // 100] AS p95,
            sum(net)::DECIMAL(18,2) AS revenue,
            {", ".join(f"count(*) FILTER (late <= {b}) AS latency_le_{b}" for b in BOUNDS)}
          FROM latencies GROUP BY ALL)
        SELECT hour, type, region, currency,
          hour + INTERVAL 1 HOUR <= (SELECT passed FROM watermark) AS is_closed, events,
          ((sum_ms * 2000 + events) // (2 * events) / 1000)::DECIMAL(18,3) AS latency_avg_ms,
          (SELECT min(bound) FROM bounds WHERE bound >= p95)::BIGINT AS latency_p95_ms, revenue,
          'EUR' AS reporting_currency, revenue AS reporting_revenue, sum_ms AS latency_sum_ms,
          {", ".join(f"latency_le_{b}" for b in BOUNDS)}
        FROM hours
    """,
}


def different(
    settings: Settings, records: list[Record], version: int | None = None
) -> dict[str, list[Any]]:
    """Rows that Gold has and DuckDB does not, or the other way round, by table; none is right.

    records: everything that was sent, in the order of the ledger's numbers. version: of
    silver.events that Gold stands at; its coordinates alone are used, and only for an old version:
    at the end the ledger says which records count.
    """
    ledger = f"read_parquet('{settings.runtime_dir}/ledger/*.parquet')"
    bronze = table(settings, "bronze/events", ["topic", "partition", "offset", "timestamp"])
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        db.register("bronze", bronze)
        numbered = {
            "number": pa.array(range(1, len(records) + 1), pa.int64()),
            "value": pa.array([record.value for record in records], pa.binary()),
        }
        db.register("all_records", pa.table(numbered))
        db.execute(f"CREATE VIEW ledger AS SELECT * FROM {ledger} WHERE outcome = 'accepted'")
        db.execute("CREATE TABLE records AS FROM all_records SEMI JOIN ledger USING (number)")
        if version is None:
            db.execute('CREATE VIEW taken AS SELECT topic, partition, "offset" FROM ledger')
        else:
            names = ["topic", "partition", "offset", "outcome"]
            silver = table(settings, "silver/events", names, version)
            db.register("silver", silver)
            db.execute("CREATE VIEW taken AS SELECT * FROM silver WHERE outcome = 'accepted'")
        db.execute(EVENTS)
        for name, query in {**TABLES, **GOLD}.items():
            db.execute(f"CREATE TABLE {name} AS {query}")
        found = {}
        for name in GOLD.keys() - {"years", "latencies"}:
            rows = table(settings, f"gold/{name}")
            db.register("actual", rows)
            columns = ", ".join(f'"{column}"' for column in rows.column_names)
            mine, theirs = f"SELECT {columns} FROM {name}", f"SELECT {columns} FROM actual"
            wrong = db.execute(
                f"SELECT 'missing', COLUMNS(*)::VARCHAR FROM (({mine}) EXCEPT ALL ({theirs})) "
                "UNION ALL "
                f"SELECT 'extra', COLUMNS(*)::VARCHAR FROM (({theirs}) EXCEPT ALL ({mine})) LIMIT 6"
            ).fetchall()
            if wrong:
                found[name] = wrong
        return found
