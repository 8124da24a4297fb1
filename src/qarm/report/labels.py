"""Labels of figures: words for the keys of JSON, which no page shows."""

import re

__all__ = ["label"]

WORDS = {
    "bad_images": "unreadable pictures",
    "bad_sounds": "unreadable sounds",
    "unknown_interactions": "interactions with unknown items",
    "dim": "numbers per vector",
    "raw_dim": "numbers per raw vector",
    "hit_rate@50": "hit rate at 50, aligned",
    "raw_hit_rate@50": "hit rate at 50, raw",
    "valid_loss": "loss on held-out pairs",
    "valid_recall@10": "recall at 10 on held-out pairs",
    "raw_recall@10": "recall at 10 on held-out pairs before training",
    "neighbour_overlap_at_10": "nearest 10 that stay nearest after decoding",
    "per_item": "rows per item",
    "items_share": "share of items",
    "users_share": "share of users",
    "users_per_pair": "later users per pair",
    "users_per_random_pair": "later users per random pair",
    "users_per_matched_pair": "later users per pair as popular",
    "lift_interval": "lift, 95 % interval",
    "matched_lift": "lift over pairs as popular",
    "matched_lift_interval": "lift over pairs as popular, 95 % interval",
    "item2item": "Swing",
    "user2item": "User2Item",
    "sources": "",
    "cap": "beyond the most rows per item",
    "min": "least",
    "max": "most",
    "energy_left": "energy left",
    "items_per_code": "items per full code",
    "collision_rate": "share of items that share their full code",
    "items_without_codes": "items without codes",
    "rq": "RQ codes",
    "vq": "VQ codes",
    "ndcg": "NDCG",
    "auc": "AUC",
    "utilisation": "share of codes in use",
    "used": "codes in use",
    "width": "codes",
    "gini": "Gini",
}


def label(key: str) -> str:
    """Words for a key, or for each part of nested ones, which a point joins."""
    parts = (WORDS.get(part, _words(part)) for part in key.split("."))
    return ", ".join(part for part in parts if part)


def _words(key: str) -> str:
    """A key as words: `items_kept` is "items kept", `recall@10` is "recall at 10"."""
    return re.sub(r"@(?=\d)", " at ", key.replace("_", " "))
