"""The database: tables, the only commit, and one repository per noun."""
