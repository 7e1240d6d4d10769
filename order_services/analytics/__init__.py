"""Counts what happens, and shows it live."""
