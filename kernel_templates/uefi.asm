{# One source for both kinds of firmware: registers and pointers are written 64 bits wide. #}
{% filter pointers_of(wide) %}
{# The firmware's numbers: types of memory, kinds of allocation and of search. #}
{% set LOADER_CODE, LOADER_DATA = 1, 2 %}
{% set FAIL_MICROSECONDS = 10000000 %}
{% set BELOW_ADDRESS, BY_PROTOCOL = 1, 2 %}
{# Calls the function at offset `function` of the table that [variable] points to. An argument is "&name" for the address
   of a variable, "name" for what is in it, a register, or a number. Changes AX, CX, DX, R8 to R11. #}
{% macro call(table, function, arguments) %}
{% if wide %}
{% for argument in arguments %}
{% set slot = loop.index0 %}
{% set register = ["rcx", "rdx", "r8", "r9"][slot] if slot < 4 else "rax" %}
{% if argument is number %}
    mov {{ register }}, {{ argument }}
{% elif argument[0] == "&" %}
    lea {{ register }}, [rbp + {{ argument[1:] }}]
{% elif argument in ["rsi", "rdi", "rbx"] %}
    mov {{ register }}, {{ argument }}
{% else %}
    mov {{ register }}, qword ptr [rbp + {{ argument }}]
{% endif %}
{% if slot >= 4 %}
    mov qword ptr [rsp + {{ 8 * slot }}], rax
{% endif %}
{% endfor %}
    mov rax, qword ptr [rbp + {{ table }}]
    call qword ptr [rax + {{ function }}]
{% else %}
{% for argument in arguments | reverse %}
{% if argument is number %}
    push {{ argument }}
{% elif argument[0] == "&" %}
    lea eax, [ebp + {{ argument[1:] }}]
    push eax
{% elif argument in ["rsi", "rdi", "rbx"] %}
    push {{ argument }}
{% else %}
    push dword ptr [ebp + {{ argument }}]
{% endif %}
{% endfor %}
    mov eax, dword ptr [ebp + {{ table }}]
    call dword ptr [eax + {{ function }}]
    add esp, {{ 4 * arguments | length }}
{% endif %}
{% endmacro %}
{# A text as the firmware wants it: 16 bits a character. #}
{% macro wide_text(text) %}
    .word '{{ text | join("', '") }}'
{% endmacro %}
{% macro line_end() %}
    .word 0x0D, 0x0A, 0
{% endmacro %}
; kgen UEFI application: leaves the firmware and starts the kernel that this file holds.
;
; Entry:    as the UEFI specification calls an application ({{ "x64" if wide else "IA32" }}: 2.3.{{ 4 if wide else 2 }}), anywhere in memory.
; Exit:     32-bit protected mode without paging at {{ "%X" % entry_point }}: flat 4 GiB segments (CS = 8, the others 16),
;           interrupts off, DF clear, EAX = {{ "%X" % eax_magic }} ("KGEU"), EBX points to a Handover (results.py);
;           the kernel at {{ "%X" % load_address }}, zeros from its end to {{ "%X" % bss_end }}.
; Clobbers: everything.
; Failure:  one line on the firmware's console and on the serial port; ten seconds later back to the firmware with
;           "out of resources". Where the firmware will not be left, or is half left, it halts.
;
; RBP holds the address that this file is loaded at; symbols are offsets from there.

.section .text, "ax", 4096
.code{{ 64 if wide else 32 }}

.equ LOAD_ADDRESS, {{ load_address }}
.equ BSS_END, {{ [bss_end, 0xFFFFFFFF] | min }}
.equ FLAT_BYTES, {{ flat_bytes }}
.equ ZERO_BYTES, {{ zero_bytes }}
.equ KERNEL, {{ kernel_address }}
.equ UART, {{ serial_port }}
.equ UART_DIVISOR, {{ uart_divisor }}
.equ EXIT_TRIES, 16
.equ MAP_SLACK, 8192                ; room for the descriptors that our own allocations add
.equ USABLE_TYPES, {{ usable_types }}          ; a bit for each type of memory that is free once the firmware is left
; What is allocated: a page for `drop` and its stack, {{ "page tables, " if wide }}a copy of the kernel.
.equ TABLES, 4096
.equ COPY, {{ copy_offset }}

start:
{% if wide %}
    push rbp
    push rbx
    push rsi
    push rdi
    sub rsp, 56                     ; 32 bytes that every function may use, the fifth argument, alignment
    call .here
.here:
    pop rbp
    sub rbp, .here
{% else %}
    mov ecx, dword ptr [esp + 4]
    mov edx, dword ptr [esp + 8]
    push ebp
    push ebx
    push esi
    push edi
    call .here
.here:
    pop ebp
    sub ebp, .here
{% endif %}
    ; CX = our handle, DX = the system table
    mov qword ptr [rbp + handle], rcx
    mov qword ptr [rbp + system], rdx
    mov rax, qword ptr [rdx + {{ system.BootServices }}]
    mov qword ptr [rbp + services], rax
    mov rax, qword ptr [rdx + {{ system.ConOut }}]
    mov qword ptr [rbp + console], rax

    call find_screen
    call find_acpi

    ; the memory map: first its size
{{ call("services", boot.GetMemoryMap, ["&map_bytes", 0, "&map_key", "&map_step", "&map_version"]) }}
    mov rbx, qword ptr [rbp + map_bytes]
    add rbx, MAP_SLACK
    mov qword ptr [rbp + map_room], rbx
{{ call("services", boot.AllocatePool, [LOADER_DATA, "rbx", "&map"]) }}
    test rax, rax
    jnz no_room
    call read_map
    jnz no_room
    mov ecx, LOAD_ADDRESS >> 12
    mov edx, (BSS_END + 4095) >> 12
    call check_memory
    jc no_memory
    mov ecx, {{ trampoline }} >> 12
    lea edx, [rcx + 1]
    call check_memory
    jc no_memory

    ; The block lies above the kernel's own memory, which is written over its whole length before the block is done with.
    ; What lies elsewhere stays allocated, so that the firmware gives something else next time.
.allocate:
    mov dword ptr [rbp + block], 0xFFFFFFFF
    mov dword ptr [rbp + block + 4], 0
{{ call("services", boot.AllocatePages, [BELOW_ADDRESS, LOADER_CODE, (copy_offset + flat_bytes + 4095) // 4096, "&block"]) }}
    test rax, rax
    jnz no_room
    mov ebx, dword ptr [rbp + block]
    cmp ebx, BSS_END
    jb .allocate

    lea eax, [rbx + gdt - drop]
    mov dword ptr [rbp + gdt_pointer + 2], eax
    lea rsi, [rbp + drop]
    mov rdi, rbx
    mov ecx, drop_end - drop
    rep movsb
    lea rsi, [rbp + KERNEL]
    lea rdi, [rbx + COPY]
    mov ecx, FLAT_BYTES
    rep movsb
{% if wide %}
    call make_tables
{% endif %}

    lea rsi, [rbp + text_leaving]
    cmp dword ptr [rbp + handover + {{ handover.framebuffer }}], 0
    jne .say
    lea rsi, [rbp + text_high]
    cmp dword ptr [rbp + high], 0
    jne .say
    lea rsi, [rbp + text_no_screen]
.say:
    call print

    ; The key is good for as long as the map is: whatever an event handler allocates means another try.
    mov rdi, EXIT_TRIES
.exit:
    call read_map
    jnz stuck
{{ call("services", boot.ExitBootServices, ["handle", "map_key"]) }}
    test rax, rax
    jz .left
    dec rdi
    jnz .exit
    jmp stuck
.left:
    cli
    cld
    mov ebx, dword ptr [rbp + block]
{% if wide %}
    ; Our tables map what the firmware's did, and let code run everywhere below 4 GiB. All of CR4 but PAE and LA57, which
    ; only paging holds, goes: PCIDE must be off before paging is, and without PGE nothing old stays in the TLB.
    mov rax, qword ptr [rbp + tables]
    mov cr3, rax
    mov rax, cr4
    and eax, 0x1020
    mov cr4, rax
    jmp rbx
{% else %}
    lgdt [ebx + gdt_pointer - drop]
    mov eax, cr0
    and eax, 0x7FFFFFFF
    mov cr0, eax
    lea eax, [ebx + drop.flat - drop]
    push 8
    push eax
    retf
{% endif %}

; The lines for what went wrong before the firmware was left; then the end.
no_room:
    lea rsi, [rbp + text_no_room]
    jmp fail
; in: AX = the type of memory that is there, all ones for nothing, ECX = the page
no_memory:
    shl ecx, 12
    lea rsi, [rbp + text_missing]
    lea rdi, [rbp + text_missing_at]
    cmp eax, -1
    je .place
    mov ebx, ecx
    mov ecx, eax
    lea rdi, [rbp + text_taken_type]
    mov dl, 8
    call put_digits
    mov ecx, ebx
    lea rsi, [rbp + text_taken]
    lea rdi, [rbp + text_taken_at]
.place:
    mov dl, 8
    call put_digits
; in: SI = text
fail:
    mov rbx, rsi
    call print_serial
    mov rsi, rbx
    call print
{{ call("services", boot.Stall, [FAIL_MICROSECONDS]) }}
    mov rax, {{ out_of_resources }}
{% if wide %}
    add rsp, 56
{% endif %}
    pop rdi
    pop rsi
    pop rbx
    pop rbp
    ret
; The firmware has begun to go and does not get to its end: nothing of it may be used any more.
stuck:
    cli
    lea rsi, [rbp + text_stuck]
    call print_serial
.stop:
    hlt
    jmp .stop

; Writes the upper DL hexadecimal digits of ECX as text to DI. Clobbers AX, CX, DL, DI.
put_digits:
    rol ecx, 4
    mov eax, ecx
    and eax, 15
    add eax, '0'
    cmp eax, '9'
    jbe .put
    add eax, 'A' - '9' - 1
.put:
    mov word ptr [rdi], ax
    add rdi, 2
    dec dl
    jnz put_digits
    ret

; Prints the text at SI on the firmware's console.
print:
{% if wide %}
    sub rsp, 40
{% endif %}
{{ call("console", output_string, ["console", "rsi"]) }}
{% if wide %}
    add rsp, 40
{% endif %}
    ret

; Prints the text at SI on the serial port, whose readiness is awaited 65536 reads long. Clobbers AX, CX, DX, SI.
print_serial:
    mov dx, UART + 3
    mov al, 0x83                    ; 8N1, divisor latch open
    out dx, al
    mov dx, UART
    mov al, UART_DIVISOR & 0xFF
    out dx, al
    mov dx, UART + 1
    mov al, UART_DIVISOR >> 8
    out dx, al
    mov dx, UART + 3
    mov al, 0x03                    ; 8N1
    out dx, al
    mov dx, UART + 4
    out dx, al                      ; DTR, RTS
    mov dx, UART + 1
    mov al, 0                       ; no interrupts
    out dx, al
.next:
    mov ecx, 65536
    mov dx, UART + 5
.busy:
    in al, dx
    test al, 0x20                   ; transmitter empty
    jnz .ready
    dec ecx
    jnz .busy
.ready:
    mov al, byte ptr [rsi]
    add rsi, 2
    test al, al
    jz .end
    mov dx, UART
    out dx, al
    jmp .next
.end:
    ret

; Reads the memory map into our buffer. Out: ZF = 1 when that went well.
read_map:
{% if wide %}
    sub rsp, 56
{% endif %}
    mov rax, qword ptr [rbp + map_room]
    mov qword ptr [rbp + map_bytes], rax
{{ call("services", boot.GetMemoryMap, ["&map_bytes", "map", "&map_key", "&map_step", "&map_version"]) }}
{% if wide %}
    add rsp, 56
{% endif %}
    test rax, rax
    ret

; Looks whether memory is free once the firmware is left.
; In: ECX = first page, EDX = the page after the last. Out: CF = 0 when all of it is, otherwise ECX = the first page that is
; not, EAX = its type, all ones where the map has nothing there. Clobbers BX, SI, DI.
check_memory:
    mov rsi, qword ptr [rbp + map]
    mov rdi, qword ptr [rbp + map_bytes]
.entry:
    sub rdi, qword ptr [rbp + map_step]
    jb .missing
    cmp dword ptr [rsi + {{ descriptor.PhysicalStart }} + 4], 0
    jne .next                       ; begins above 4 GiB
    mov eax, dword ptr [rsi + {{ descriptor.PhysicalStart }}]
    shr eax, 12
    cmp eax, ecx
    ja .next
    cmp dword ptr [rsi + {{ descriptor.NumberOfPages }} + 4], 0
    jne .long
    mov ebx, dword ptr [rsi + {{ descriptor.NumberOfPages }}]
    cmp ebx, 0x100000
    jae .long
    add eax, ebx
    jmp .have
.long:
    mov eax, 0x200000               ; ends above 4 GiB
.have:
    cmp eax, ecx
    jbe .next
    ; this one holds the page at ECX and ends at EAX
    mov ebx, dword ptr [rsi + {{ descriptor.Type }}]
    cmp ebx, 31
    ja .taken
    mov rsi, USABLE_TYPES
    bt esi, ebx
    jnc .taken
    mov ecx, eax
    cmp ecx, edx
    jb check_memory
    clc
    ret
.next:
    add rsi, qword ptr [rbp + map_step]
    jmp .entry
.missing:
    mov ebx, -1
.taken:
    mov eax, ebx
    stc
    ret

; Looks through all graphics outputs for a linear framebuffer of 32 bits a pixel below 4 GiB.
; Out: `handover`; `high` where there is one above 4 GiB only. Clobbers all but BP.
find_screen:
{% if wide %}
    sub rsp, 56
{% endif %}
{{ call("services", boot.LocateHandleBuffer, [BY_PROTOCOL, "&graphics_output", 0, "&screens", "&screen"]) }}
    test rax, rax
    jnz .end
    mov rdi, qword ptr [rbp + screens]
    mov rbx, qword ptr [rbp + screen]
.next:
    test rdi, rdi
    jz .end
    dec rdi
    mov rsi, qword ptr [rbx]
    add rbx, {{ pointer_bytes }}
{{ call("services", boot.HandleProtocol, ["rsi", "&graphics_output", "&graphics"]) }}
    test rax, rax
    jnz .next
    mov rsi, qword ptr [rbp + graphics]
    mov rsi, qword ptr [rsi + {{ graphics.Mode }}]
    test rsi, rsi
    jz .next
    mov rcx, qword ptr [rsi + {{ mode.Info }}]
    cmp dword ptr [rcx + {{ info.PixelFormat }}], 1
    ja .next                        ; 0 and 1 have red, green, blue and nothing, of 8 bits each
    mov eax, dword ptr [rsi + {{ mode.FrameBufferBase }}]
    cmp dword ptr [rsi + {{ mode.FrameBufferBase }} + 4], 0
    jne .high
    test eax, eax
    jz .next
    mov rsi, rax
    mov eax, dword ptr [rcx + {{ info.PixelsPerScanLine }}]
    shl eax, 2
    mov dword ptr [rbp + handover + {{ handover.pitch }}], eax
    mov edx, dword ptr [rcx + {{ info.VerticalResolution }}]
    mov dword ptr [rbp + handover + {{ handover.height }}], edx
    mul edx
    jc .high
    add eax, esi
    jc .high
    mov edx, dword ptr [rcx + {{ info.HorizontalResolution }}]
    mov dword ptr [rbp + handover + {{ handover.width }}], edx
    mov dword ptr [rbp + handover + {{ handover.framebuffer }}], esi
    jmp .end
.high:
    mov dword ptr [rbp + high], 1
    jmp .next
.end:
{% if wide %}
    add rsp, 56
{% endif %}
    ret

; Looks for ACPI's root pointer among the configuration tables, that of ACPI 2.0 and later first.
; Out: `handover`. Clobbers AX, CX, DX, SI, DI.
find_acpi:
    lea rdi, [rbp + acpi_1]
    call .find
    lea rdi, [rbp + acpi_2]
.find:
    mov rsi, qword ptr [rbp + system]
    mov rcx, qword ptr [rsi + {{ system.NumberOfTableEntries }}]
    mov rsi, qword ptr [rsi + {{ system.ConfigurationTable }}]
.next:
    test rcx, rcx
    jz .end
    dec rcx
{% for part in range(4) %}
    mov eax, dword ptr [rsi + {{ 4 * part }}]
    cmp eax, dword ptr [rdi + {{ 4 * part }}]
    jne .other
{% endfor %}
{% if wide %}
    cmp dword ptr [rsi + 20], 0     ; above 4 GiB
    jne .other
{% endif %}
    mov eax, dword ptr [rsi + 16]
    mov dword ptr [rbp + handover + {{ handover.rsdp }}], eax
.end:
    ret
.other:
    add rsi, {{ 16 + pointer_bytes }}
    jmp .next

{% if wide %}
; Makes page tables in the block that map what the firmware's do, but the lowest 4 GiB one to one and without any
; restriction: firmware may forbid code in the memory that it gives. Out: `tables`. Clobbers RAX, RCX, RDX, RSI, RDI.
make_tables:
    mov edi, dword ptr [rbp + block]
    add rdi, TABLES
    mov qword ptr [rbp + tables], rdi
    mov rdx, 0x000FFFFFFFFFF000     ; the address in an entry
    mov rsi, cr3
    mov rax, cr4
    test eax, 0x1000                ; LA57: a fifth level above the others
    jz .level_4
    call .copy
    call .link
.level_4:
    call .copy
    call .link
    call .copy
    ; RDI is after the table whose first four entries are for 1 GiB each, and where their own tables come
    lea rax, [rdi + 3]              ; present, writable
{% for entry in range(4) %}
    mov qword ptr [rdi - 4096 + {{ 8 * entry }}], rax
    add rax, 0x1000
{% endfor %}
    mov eax, 0x83                   ; present, writable, 2 MiB
    mov ecx, 2048
.fill:
    mov qword ptr [rdi], rax
    add rax, 0x200000
    add rdi, 8
    dec ecx
    jnz .fill
    ret
; The table at RSI to RDI, which then points after it.
.copy:
    and rsi, rdx
    mov ecx, 1024
    rep movsd
    ret
; RSI = what the first entry of the table before RDI led to; it leads to RDI now.
.link:
    mov rsi, qword ptr [rdi - 4096]
    lea rax, [rdi + 3]
    mov qword ptr [rdi - 4096], rax
    ret
{% endif %}

.section .data, "aw", 4096
; From here to `drop_end` is copied to the start of the block, below 4 GiB. In: EBX = the block.
drop:
{% if wide %}
    lgdt [rbx + gdt_pointer - drop]
    lea eax, [rbx + .flat - drop]
    sub rsp, 8
    mov dword ptr [rsp], eax
    mov dword ptr [rsp + 4], 8
    retf
.code32
    ; still paging, mapped one to one; the data segments are the firmware's
.flat:
    mov eax, cr0
    and eax, 0x7FFFFFFF
    mov cr0, eax
    mov ecx, 0xC0000080             ; EFER: no long mode, no NX, no SYSCALL
    rdmsr
    and eax, ~0x901
    wrmsr
{% else %}
.flat:
{% endif %}
    xor eax, eax
    mov cr4, eax
    mov eax, 16
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    lea esp, [ebx + TABLES]
    lea esi, [ebx + COPY]
    mov edi, LOAD_ADDRESS
    mov ecx, FLAT_BYTES / 4
    rep movsd
    mov ecx, FLAT_BYTES % 4
    rep movsb
    xor eax, eax
    mov ecx, ZERO_BYTES / 4
    rep stosd
    mov ecx, ZERO_BYTES % 4
    rep stosb
    lea ebx, [ebx + handover - drop]
    mov eax, {{ eax_magic }}
    mov ecx, {{ entry_point }}
    jmp ecx
.align 8, 0
gdt:
    .quad 0
    .quad 0x00CF9B000000FFFF        ; code, base 0, limit 4 GiB
    .quad 0x00CF93000000FFFF        ; data
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .quad 0
.align 4, 0
handover:
    .skip {{ handover.SIZE }}
drop_end:

.align 8, 0
{% for name in ["handle", "system", "services", "console", "map", "map_bytes", "map_room", "map_key", "map_step",
                "map_version", "block", "tables", "screens", "screen", "graphics", "high"] %}
{{ name }}:
    .quad 0
{% endfor %}
{% for name, parts in guids.items() %}
{{ name }}:
    .long {{ parts | join(", ") }}
{% endfor %}
text_leaving:
{{ wide_text("kgen: leaving UEFI, output continues on the serial port and the screen") }}
{{ line_end() }}
text_high:
{{ wide_text("kgen: leaving UEFI, output continues on the serial port; the framebuffer lies above 4 GiB, out of reach") }}
{{ line_end() }}
text_no_screen:
{{ wide_text("kgen: leaving UEFI, output continues on the serial port; there is no framebuffer of 32 bits a pixel") }}
{{ line_end() }}
text_no_room:
{{ wide_text("kgen: cannot start, the firmware has too little memory left below 4 GiB") }}
{{ line_end() }}
text_missing:
{{ wide_text("kgen: cannot start, too little memory: nothing is at 0x") }}
text_missing_at:
    .skip 16
{{ wide_text(needs) }}
{{ line_end() }}
text_taken:
{{ wide_text("kgen: cannot start, memory is taken (type 0x") }}
text_taken_type:
    .skip 16
{{ wide_text(") at 0x") }}
text_taken_at:
    .skip 16
{{ wide_text(needs) }}
{{ line_end() }}
text_stuck:
{{ wide_text("kgen: cannot start, the firmware does not let go") }}
{{ line_end() }}
{% endfilter %}
