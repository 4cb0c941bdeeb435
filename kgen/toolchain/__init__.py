"""From text to ELF: statements, encodings, assembler, an independent decoder, linker, DWARF, listing."""
