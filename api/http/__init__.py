"""The HTTP interface: an app, its state, and one router for each kind of resource."""
