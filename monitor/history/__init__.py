"""Past polls in a database: what charts show, and what a restart takes up."""
