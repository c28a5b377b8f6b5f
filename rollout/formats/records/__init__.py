"""Files and requests of records: CSV, JSON, Parquet and the API form."""
