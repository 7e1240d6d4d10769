"""Accepts orders, says how they are, and cancels them."""
