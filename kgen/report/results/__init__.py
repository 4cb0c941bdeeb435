"""Result documents: model, reading, writing, and checking against their own evidence."""
