"""The catalogue, the interaction log, users, and their splits."""
