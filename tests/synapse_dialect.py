"""T-SQL as sqlfluff knows it, and what Synapse has besides: partitions of a table.

https://learn.microsoft.com/sql/t-sql/statements/create-table-azure-sql-data-warehouse
"""

from __future__ import annotations

from typing import Any

from sqlfluff.core import FluffConfig, Linter
from sqlfluff.core.dialects import load_raw_dialect
from sqlfluff.core.parser import (
    BaseSegment,
    Bracketed,
    Delimited,
    OneOf,
    Ref,
    Sequence,
)


class TablePartitionClause(BaseSegment):
    type = "table_partition_clause"
    match_grammar = Sequence(
        "PARTITION",
        Bracketed(
            Ref("ColumnReferenceSegment"),
            "RANGE",
            OneOf("LEFT", "RIGHT", optional=True),
            "FOR",
            "VALUES",
            Bracketed(Delimited(Ref("LiteralGrammar"))),
        ),
    )


class TableDistributionIndexClause(BaseSegment):
    type = "table_distribution_index_clause"
    match_grammar = Sequence(
        "WITH",
        Bracketed(
            Delimited(
                Ref("TableDistributionClause"),
                Ref("TableIndexClause"),
                Ref("TablePartitionClause"),
            )
        ),
    )


def parser() -> Linter:
    dialect = load_raw_dialect("tsql").copy_as(
        "synapse", formatted_name="Synapse", docstring="Dedicated SQL pools."
    )
    dialect.add(TablePartitionClause=TablePartitionClause)
    dialect.replace(TableDistributionIndexClause=TableDistributionIndexClause)
    config = FluffConfig(overrides={"dialect": "tsql"})
    core: dict[str, Any] = config._configs["core"]
    core["dialect_obj"] = dialect.expand()
    return Linter(config=config)


def unparsable(linter: Linter, statement: str) -> list[str]:
    """Sections of a statement that are none of the dialect; what the parser says of it."""
    parsed = linter.parse_string(statement)
    said = [violation.desc() for violation in parsed.violations]
    if parsed.tree is None:
        return said or ["nothing was read"]
    return said + [section.raw for section in parsed.tree.recursive_crawl("unparsable")]
