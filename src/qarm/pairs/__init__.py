"""Pairs of items that behave alike: Swing, User2Item, their selection and quality."""
