"""Report of a run: one page and the static explorer, from the run's JSON."""
