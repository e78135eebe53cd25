"""A gallery: vectors of people on disk that are searched, added to, removed and forgotten."""
