"""How fast, and whether at all: rates of lanes, accounts and domains, circuits, failover and warm-up.

`rules` is what the shop writes; `buckets`, `adaptive` and `circuit` decide on values; `accounts` keeps their state in
the database, where all workers share it; `taking` is the last step of an authorisation, `line` gives turns to whoever
has to wait, `hearing` writes down what a hand-over told of its provider.
"""
