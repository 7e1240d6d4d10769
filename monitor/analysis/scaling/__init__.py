"""How many replicas a group should have now, and why: pure functions and one small history a group."""
