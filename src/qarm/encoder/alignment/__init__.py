"""Fine-tuning of the encoder on pairs (QARM, section 3.1)."""
