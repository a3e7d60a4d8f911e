"""Files that others publish: where they are, fetching and checking them, finding them again."""
