"""The Azure SQL and SQL Server target."""
