"""Pretrained encoders of one modality, and of whole items."""
