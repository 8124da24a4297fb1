"""Item2Item pairs by Swing."""
