"""Questions to the target: what runs, ran, is up to date, failed.

Read only.  Every statement is SQLAlchemy core on `store.tables`, so it runs on
SQLite, PostgreSQL and Azure SQL alike.  Ages and 'stuck' are by the target's
clock, never by this machine's.

`runs` answers about sessions, `databases` about nodes, `failures` about errors;
`health` puts them together, `problems` decides what of it somebody must look at;
`export` writes every error to a file.
"""
