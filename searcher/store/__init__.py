"""Store studies, trials and learning curves in SQL. Only this package imports SQLAlchemy; it returns records."""
