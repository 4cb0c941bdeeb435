; The parity experiment: two CPUs change each cell equally often, with an operation that undoes itself.
{% from "macros.asm" import look_at_finals, next_cell, witness %}

; The start value and what one operation makes of it. in: ESI cell; out: EAX points to both; clobbers: nothing
parity_entry:
    mov eax, dword ptr [results + Results.handshake + Handshake.batch]
    add eax, esi
    and eax, PARITY_STARTS - 1
    shl eax, 3
    add eax, dword ptr [results + Results.handshake + Handshake.task + Task.data]
    ret

; in: EBP plan row; clobbers: EAX, ECX, EDX, ESI, EDI
parity_prepare:
    xor esi, esi
    mov edi, dword ptr [results + Results.handshake + Handshake.address]
.cell:
    call parity_entry
    mov eax, dword ptr [eax]
    call dword ptr [results + Results.handshake + Handshake.task + Task.store]
    add edi, dword ptr [results + Results.handshake + Handshake.task + Task.stride]
    inc esi
    cmp esi, dword ptr [results + Results.handshake + Handshake.cells]
    jb .cell
    ret

; Both change it so many times: once, so that no loss can cancel another, up to four times, which meet more often.
; in: EBX this CPU's entry, ECX cell, EDI its address; clobbers: EAX, EDX, EBP, ESI
parity_visit:
    mov ebp, dword ptr [results + Results.handshake + Handshake.repeat]
    shr ebp, REPEAT_SHIFT
    mov eax, ebp
    call count_operations
.change:
    mov eax, dword ptr [results + Results.handshake + Handshake.task + Task.operand]
    mov esi, dword ptr [results + Results.handshake + Handshake.task + Task.put]
    call operate
    dec ebp
    jnz .change
    ret

; in: EBX phase, EBP plan row; out: CF set if a cell did not stay as it was
; clobbers: EAX, ECX, EDX, ESI, EDI
parity_judge:
{% call look_at_finals(".good") %}
    call parity_entry
    mov eax, dword ptr [eax]
    cmp eax, dword ptr [finals + 4 * esi]
{% endcall %}
    call parity_entry
    mov edx, dword ptr [eax + 4]
    mov eax, dword ptr [eax]
    mov edi, dword ptr [finals + 4 * esi]
    cmp eax, edi
    je .next
    cmp edx, edi
    jne .torn
{{ witness("LOST", "eax", "edi", "NO_CPU") }}
    jmp .next
.torn:
{{ witness("TORN", "eax", "edi", "NO_CPU") }}
.next:
{{ next_cell(".cell") | trim("\n") }}
.good:
    call take_notes
    clc
.return:
    ret
