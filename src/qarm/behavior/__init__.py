"""What users did: log, split, Swing and User2Item, pairs."""
