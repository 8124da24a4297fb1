"""Tables: one door for reading and writing."""

from qarm.core.tables.columns import as_ids, as_keys, as_numbers, as_texts
from qarm.core.tables.hashes import files_hash, rows_hash
from qarm.core.tables.location import address, is_table, media_folder
from qarm.core.tables.reader import Table, TableColumns, column, read_table, table_name

__all__ = [
    "Table",
    "TableColumns",
    "address",
    "as_ids",
    "as_keys",
    "as_numbers",
    "as_texts",
    "column",
    "files_hash",
    "is_table",
    "media_folder",
    "read_table",
    "rows_hash",
    "table_name",
]
