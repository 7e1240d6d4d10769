"""The database: its tables are declared in `tables`, and come and change by migrations."""
