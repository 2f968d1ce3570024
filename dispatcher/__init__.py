"""The mind: every rule and every record."""

import zoneinfo

# Zone rules come from the pinned `tzdata` package only: the system's own copy differs from machine to machine (today
# for Vancouver and others), and an hour's difference is a text at night.
zoneinfo.reset_tzpath(to=())
