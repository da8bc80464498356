"""Studies, trials and learning curves in SQL. No other package imports SQLAlchemy; this one returns records."""
