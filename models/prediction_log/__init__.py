"""The predictions of every record, as Parquet files by position."""
