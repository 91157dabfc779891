"""Records: encoded images by row in Parquet parts, written once and read by row."""
