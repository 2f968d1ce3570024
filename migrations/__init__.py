"""How the ledger's schema came to be; run by `dispatcher.schema`."""
