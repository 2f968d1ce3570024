"""Triggers: a message of its own for each event that starts one.

* `keys`      what a trigger may know of an event, and the key it makes of it
* `standing`  the triggers that are applied, and the standing run of each version
* `arrivals`  what an event that arrives does: starts a message, moves one, ends a flow
* `exits`     what the gates must know of a flow when its message is due
* `listing`   the triggers with their counts, and pausing them
"""
