"""Ternary network compiler."""
