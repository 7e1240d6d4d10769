"""Charges orders, and gives the money back when they are cancelled."""
