"""What the shop's programs ask for, under /v1.  A file per resource; each translates only, the rules are elsewhere."""
