"""Records: encoded images by row in Parquet parts, written once and read by row."""

from __future__ import annotations

from angulus.data.records.parts import Place, Row
from angulus.data.records.reader import Records
from angulus.data.records.writer import RecordWriter, write_records

__all__ = ["Place", "RecordWriter", "Records", "Row", "write_records"]
