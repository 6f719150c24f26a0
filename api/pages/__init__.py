"""Pages for people: rendered here, over the same functions as the routes for programs."""
