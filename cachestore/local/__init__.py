"""Local disk: spool, board, catalog, cache, facts, folder."""
