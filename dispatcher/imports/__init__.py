"""What comes in as files: contacts and order lines, read by the page and written by COPY."""
