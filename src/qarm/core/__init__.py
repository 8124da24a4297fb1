"""Files, tables, parallel work and statistics that every stage uses."""
