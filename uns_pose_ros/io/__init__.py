"""Every file and message format, read defensively and written atomically."""
