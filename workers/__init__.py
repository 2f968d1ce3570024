"""The hands: Dramatiq broker, middleware, shallow actors."""
