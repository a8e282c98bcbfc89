"""volfs: versioned image volumes as plain directories and files."""
