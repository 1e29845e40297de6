"""The long-running queries, one module a query."""
