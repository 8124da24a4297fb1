"""Quality of item vectors before and after alignment."""
