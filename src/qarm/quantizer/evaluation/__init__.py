"""Quality of item codes."""
