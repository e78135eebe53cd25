"""Whatever takes rows and vectors, and reading them again."""
