"""The SQLite database: schema, transactions, queries and updates; and the files beside it."""
