"""The multi-modal item encoder: towers, heads, cached features, embeddings."""
