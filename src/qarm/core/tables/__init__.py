"""Tables: one door for reading and writing."""

from qarm.core.tables.columns import as_ids, column
from qarm.core.tables.reader import Table, read_table, table_name

__all__ = ["Table", "as_ids", "column", "read_table", "table_name"]
