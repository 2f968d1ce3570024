"""The clock: one table "when -> which actor"; does no work itself."""
