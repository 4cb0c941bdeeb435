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
; one row a phase, fields as PlanEntry in results.py
.align 4
plan:
{% for phase in phases %}
{% for row in phase.rows %}
    .long {{ row }}
{% endfor %}
{% endfor %}
{% for table in tables %}
{{ table.label }}:
{% for row in table.rows %}
    .long {{ row }}
{% endfor %}
{% endfor %}
; the phases that the code of each case is about, the case last
code_phases:
{% for code in codes %}
    .long code_phases_{{ loop.index0 }}
{% endfor %}
code_headings:
{% for code in codes %}
    .long code_heading_{{ loop.index0 }}
{% endfor %}
{% for code in codes %}
code_phases_{{ loop.index0 }}:
    .long {{ code.phases | join(", ") }}, NO_PHASE
{% endfor %}
; what each code says of the request, in symbols
{% for code in codes %}
code_heading_{{ loop.index0 }}:
    .byte {{ code.heading | join(", ") }}, NO_SYMBOL
{% endfor %}
code_alphabet:
    .ascii {{ code_alphabet | quoted }}
.align 4
; filled in by the linker
build_id:
    .skip BUILD_ID_BYTES
hex_digits:
    .ascii "0123456789abcdef"
debug_exit_key:
    .asciz "isa-debug-exit=0x"
attend_key:
    .asciz "attend=0x"
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
    .asciz {{ kernel_name | quoted }}
{% if suite %}
text_tap_version:
    .asciz "TAP version 14"
text_tap_plan:
    .asciz {{ tap_plan | quoted }}
text_tap_ok:
    .asciz "ok "
text_tap_not_ok:
    .asciz "not ok "
text_tap_dash:
    .asciz " - "
text_tap_skip:
    .asciz " # SKIP"
.align 4
case_names:
{% for case in case_ids %}
    .long text_case_{{ loop.index0 }}
{% endfor %}
{% for case in case_ids %}
text_case_{{ loop.index0 }}:
    .asciz {{ case | quoted }}
{% endfor %}
{% endif %}
; what this kernel is, for readers of its log and of its memory: see protocol.py
    .ascii {{ spec_magic | quoted }}
text_spec:
{% for part in spec_parts %}
    .asciz {{ part | quoted }}
{% endfor %}
    .byte 0
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
{% for name, sentence in sentences.items() %}
sentence_{{ name }}:
    .asciz {{ sentence | quoted }}
{% endfor %}

.section .data, "aw", 64
; index 0 is the BSP
cpus_arrived:
    .long 1
; the consumer of the last meeting; the first one comes next
partner:
    .long results + Results.cpu + Cpu.SIZE - PARTNER_STEP * Cpu.SIZE
current_case:
    .long 0xFFFFFFFF
screen_page:
    .long NO_PAGE
; where BARs go that firmware has not placed
pci_next:
    .long PCI_WINDOW

.section .bss, "awn", 64
bss_begin:
results:
    .skip Results.SIZE
.align 4096
ram_cells:
    .skip RAM_CELLS
; marks that operations leave, see the experiments
owners:
    .skip OWNERS
; cells as the batch began, and as it left them
starts:
    .skip 4 * MAX_BATCH
finals:
    .skip 4 * MAX_BATCH
; what a lock guards, who holds it, and how often it was entered
guarded:
    .skip 4 * MAX_BATCH
holders:
    .skip 4 * MAX_BATCH
entries:
    .skip 4 * MAX_BATCH
struck:
    .skip MAX_BATCH
.align 4
tallies:
    .skip Tally.SIZE * CPUS_NEEDED
; each CPU's operations of the current batch, and which of them each ticket belongs to
operations:
    .skip LOG_BYTES * CPUS_NEEDED
ticket_slots:
    .skip 4 * TICKETS
; a chain's operations by the number of the value that they got, and that they wrote
chain_readers:
    .skip 4 * CHAIN_VALUES
chain_writers:
    .skip 4 * CHAIN_VALUES
; what each consumer found in each cell of the current batch; 0 means nothing
takes:
    .skip 4 * MAX_BATCH * CPUS_NEEDED
tokens:
    .skip 4 * MAX_BATCH
olds:
    .skip 4 * MAX_BATCH
missing:
    .skip MAX_BATCH
handover:
    .skip Handover.SIZE
idt:
    .skip 256 * 8
; bits by APIC id: who has come, who counts, whom firmware lists
ids_seen:
    .skip APIC_IDS / 8
ids_counted:
    .skip APIC_IDS / 8
ids_listed:
    .skip APIC_IDS / 8
index_of_id:
    .skip APIC_IDS
acpi_rsdp:
    .skip 4
; what find_table looks for, and what reads it
acpi_signature:
    .skip 4
acpi_reader:
    .skip 4
; the power management timer's I/O port; 0: there is none
pm_timer_port:
    .skip 4
; ticks a millisecond by each source; the measurement that is made, its best, how many were good
clock_pit:
    .skip 4
clock_pm:
    .skip 4
clock_cpuid:
    .skip 4
clock_rounds:
    .skip 4
clock_shot:
    .skip 4
clock_best:
    .skip 4
clock_good:
    .skip 4
madt_cpus:
    .skip 4
madt_top:
    .skip 4
cpus_awaited:
    .skip 4
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
vga_current:
    .skip 4
; the screen: lines, what is shown of them, and where
screen_ring:
    .skip SCREEN_ROWS * SCREEN_COLUMNS
screen_shown:
    .skip SCREEN_ROWS * SCREEN_COLUMNS
screen_first:
    .skip 4
screen_last:
    .skip 4
screen_column:
    .skip 4
screen_columns:
    .skip 4
screen_base:
    .skip 4
screen_pitch:
    .skip 4
screen_draw:
    .skip 4
screen_cells:
    .skip 4
; whether it may be drawn on, there is something new, it is being drawn on, what is printed is for it alone
screen_live:
    .skip 1
screen_dirty:
    .skip 1
screen_busy:
    .skip 1
screen_only:
    .skip 1
; the font must be loaded again
screen_stale:
    .skip 1
.align 4
{% if suite %}
summary_clean:
    .skip 4
summary_violated:
    .skip 4
summary_skipped:
    .skip 4
summary_lines:
    .skip 4
{% endif %}
code_length:
    .skip 4
code_case:
    .skip 4
code_state:
    .skip 4
; how many digits of a count of live batches are kept, and how many at least
code_digits:
    .skip 4
code_least:
    .skip 4
code_idle:
    .skip 4
code_rest:
    .skip 8
code_symbols:
    .skip CODE_MOST + CODE_CHECK
code_text:
    .skip 2 * (CODE_MOST + CODE_CHECK)
.align 4
attended:
    .skip 4
phase_faults:
    .skip 4
phase_esp:
    .skip 4
phase_ebp:
    .skip 4
phase_ebx:
    .skip 4
group_first:
    .skip 4
group_end:
    .skip 4
group_running:
    .skip 4
group_limited:
    .skip 4
turn_left:
    .skip 4
case_live:
    .skip 4
race_ticks:
    .skip 4
chain_base:
    .skip 4
chain_each:
    .skip 4
chain_starts:
    .skip 4
chain_total:
    .skip 4
chain_wrote:
    .skip 4
chain_bad:
    .skip 4
chain_last:
    .skip 4
chain_last_log:
    .skip 4
rounds_needed:
    .skip 4
case_share:
    .skip 4
counter_total:
    .skip 4
own_bits_report:
    .skip 4
own_bits_wrong:
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
phase_deadline:
    .skip 8
budget_deadline:
    .skip 8
beat_deadline:
    .skip 8
serial_deadline:
    .skip 8
screen_deadline:
    .skip 8
; all CPUs change these at each operation: a cache line for each
.align 64
sequence:
    .skip 64
race_line:
    .skip 64
.align 4096
stacks:
    .skip CPU_TABLE * STACK_SIZE
bss_end:
