"""The comparison of docs/protocol.md: windows, sources of codes, cells, intervals, tables."""
