"""Results as one web page that needs nothing else: one module a part, and the templates."""
