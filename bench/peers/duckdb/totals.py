"""Run a query over Parquet files, twice: run by bench/batch.py in DuckDB's own venv.

python totals.py SQL_FILE FILES.json OUT.parquet
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import duckdb

sql_file, files, out = sys.argv[1:]
query = Path(sql_file).read_text().replace("$files", str(json.loads(Path(files).read_text())))
for _ in range(2):
    began = time.perf_counter()
    duckdb.sql(f"COPY ({query}) TO '{out}' (FORMAT parquet, COMPRESSION zstd)")
    print(json.dumps({"took_s": time.perf_counter() - began}), flush=True)
