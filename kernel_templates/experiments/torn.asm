; The torn experiment: plain stores of one nibble repeated, and plain loads.

; in: EBP plan row; clobbers: EAX, ECX, EDX, ESI, EDI
torn_prepare:
    xor eax, eax
    jmp fill_cells

; in: EBX this CPU's entry, ECX cell, EDI its address; clobbers: EAX, EDX, EBP, ESI
torn_visit:
    mov eax, dword ptr [results + Results.handshake + Handshake.repeat]
    call count_operations
    push eax
    call cpu_index
    imul ebp, eax, 5
.again:
    ; a nibble that differs from this CPU's last one and, mostly, from the others'
    mov eax, ebp
    add eax, dword ptr [esp]
    and eax, 15
    imul eax, eax, 0x11111111
    and eax, dword ptr [results + Results.handshake + Handshake.task + Task.cell_mask]
    mov esi, torn_access
    call operate
    mov edx, eax
    and edx, 15
    imul edx, edx, 0x11111111
    and edx, dword ptr [results + Results.handshake + Handshake.task + Task.cell_mask]
    cmp eax, edx
    je .next
    cmp dword ptr [results + Results.handshake + Handshake.task + Task.facts], 0
    jne .fact
    push NO_CPU
    push eax
    push edx
    push ViolationKind.TORN
    call note
    jmp .next
.fact:
    ; the manuals do not promise that this access is whole
    push edi
    call tally_of
    inc dword ptr [edi + Tally.facts]
    pop edi
.next:
    dec dword ptr [esp]
    jnz .again
    pop eax
    ret

; A store and a load. in: EAX value, EDI cell; out: EAX; clobbers: EDX
torn_access:
    call dword ptr [results + Results.handshake + Handshake.task + Task.put]
    jmp dword ptr [results + Results.handshake + Handshake.task + Task.load]

; in: EBX phase, EBP plan row; out: CF clear; clobbers: EAX, ECX, EDX, ESI, EDI
torn_judge:
    call take_notes
    clc
    ret
