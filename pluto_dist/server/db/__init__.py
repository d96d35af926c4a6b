"""SQLite: schema, transactions, and the queries and updates of each kind of record."""
