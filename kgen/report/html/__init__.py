"""Results as one web page that needs no other file: one module for each part, and the templates."""
