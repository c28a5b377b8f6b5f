"""The database: tables, transactions and a repository for each noun."""
