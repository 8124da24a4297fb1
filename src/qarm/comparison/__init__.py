"""The comparison of docs/protocol.md: windows, code sources, seeds, intervals, tables."""
