; Read-only data: tables and texts.
.section .rodata, "a", 64
.align 8
gdt:
    .quad 0
    ; flat 4 GiB: code, then data; marked accessed already, so that no CPU ever writes here
    .quad 0x00CF9B000000FFFF
    .quad 0x00CF93000000FFFF
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt
.align 4
idt_pointer:
    .word 256 * 8 - 1
    .long idt
.align 4
fault_stubs:
{% for vector in range(32) %}
    .long fault_{{ vector }}
{% endfor %}
crc_table:
{% for entry in crc_table %}
    .long {{ "%#x" | format(entry) }}
{% endfor %}
; one row a phase, fields as PlanEntry in layout.py
plan:
{% for phase in phases %}
    .long {{ phase.role.value }}, {{ phase.cell_address }}, {{ phase.cells }}, {{ phase.rounds }}, {{ phase.enough }}, {{ phase.vga }}
    .long put_{{ phase.routine }}, consume_exchange_{{ phase.routine }}, consume_read_{{ phase.routine }}
    .long text_phase_{{ phase.index }}, {{ phase.announce }}
{% endfor %}
vga_sequencer:
    .byte 0x03, 0x00, 0x03, 0x00, 0x02
vga_crtc:
    .byte 0x5F, 0x4F, 0x50, 0x82, 0x55, 0x81, 0xBF, 0x1F, 0x00, 0x4F, 0x2D, 0x0E, 0x00, 0x00, 0x00, 0x00
    .byte 0x9C, 0x0E, 0x8F, 0x28, 0x1F, 0x96, 0xB9, 0xA3, 0xFF
vga_graphics:
    .byte 0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0E, 0x00, 0xFF
vga_attribute:
    .byte 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3A, 0x3B, 0x3C, 0x3D, 0x3E, 0x3F
    .byte 0x0C, 0x00, 0x0F, 0x08, 0x00
; filled in by the linker
build_id:
    .skip BUILD_ID_BYTES
hex_digits:
    .ascii "0123456789abcdef"
debug_exit_key:
    .asciz "isa-debug-exit=0x"
text_prefix:
    .asciz {{ line_prefix | quoted }}
text_crc:
    .asciz " crc="
text_table_header:
    .asciz {{ table_header | quoted }}
text_counts:
    .asciz "counts:\t"
text_version:
    .asciz {{ version | quoted }}
text_case:
    .asciz {{ case_id | quoted }}
text_digest:
    .asciz {{ digest | quoted }}
{% for phase in phases %}
text_phase_{{ phase.index }}:
    .asciz {{ phase.label | quoted }}
{% endfor %}
{% for kind, format in formats.items() %}
format_{{ kind }}:
    .asciz {{ format | quoted }}
{% endfor %}

.section .data, "aw", 64
; index 0 is the BSP
cpus_arrived:
    .long 1
; the consumer of the last meeting; the first one comes next
partner:
    .long results + Results.cpu + Cpu.SIZE - PARTNER_STEP * Cpu.SIZE

.section .bss, "awn", 64
results:
    .skip Results.SIZE
.align 64
ram_cells:
    .skip 4096
; what each consumer found in each cell of the current batch; 0 means nothing
takes:
    .skip 4 * MAX_BATCH * CPUS_NEEDED
tokens:
    .skip 4 * MAX_BATCH
olds:
    .skip 4 * MAX_BATCH
missing:
    .skip MAX_BATCH
idt:
    .skip 256 * 8
ids_seen:
    .skip CPU_TABLE / 8
ids_counted:
    .skip CPU_TABLE / 8
index_of_id:
    .skip CPU_TABLE
woken:
    .skip 4
timer_fired:
    .skip 4
apic_base:
    .skip 4
debug_exit_port:
    .skip 4
serial_depth:
    .skip 4
serial_room:
    .skip 4
line_crc_register:
    .skip 4
log_crc_register:
    .skip 4
log_crc:
    .skip 4
next_token:
    .skip 4
; consumers that the producer deals with just now: from this entry of the CPU table up to that one
await_budget:
    .skip 4
range_first:
    .skip 4
range_end:
    .skip 4
row_pending:
    .skip 4
.align 8
wait_deadline:
    .skip 8
start_deadline:
    .skip 8
settle_deadline:
    .skip 8
park_deadline:
    .skip 8
row_deadline:
    .skip 8
phase_start:
    .skip 8
.align 4096
stacks:
    .skip CPU_TABLE * STACK_SIZE
