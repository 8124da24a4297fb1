"""What items are: catalogue, media, encoder, alignment, embeddings."""
