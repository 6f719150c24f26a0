"""Everything that touches SQL: tables, migrations, repositories, ingest, and the embedded PostgreSQL."""
