"""The scaling guide's checklist, asked of a running system."""
