"""The suites of `limner eval run`, a module each: `run(world, embedder, options, tell)` gives `Findings`."""
