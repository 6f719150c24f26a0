"""Settings, command line and HTTP: the only package that reads the environment."""
