; The mutex experiment: a lock made of the instruction guards a counter in RAM.
{% from "macros.asm" import count64, look_at_finals, next_cell, witness %}

; in: EBP plan row; clobbers: EAX, ECX, EDX, ESI, EDI
mutex_prepare:
    mov ecx, MAX_BATCH
    mov edi, guarded
    xor eax, eax
    rep stosd
    mov ecx, MAX_BATCH
    mov edi, entries
    rep stosd
    ; EAX is 0 still: every lock is free
    jmp fill_cells

; in: EBX this CPU's entry, ECX cell, EDI its address; clobbers: EAX, EDX, EBP, ESI
mutex_visit:
    mov eax, dword ptr [results + Results.handshake + Handshake.repeat]
    call count_operations
    push eax
    call cpu_index
    mov ebp, eax
.try:
    mov eax, dword ptr [results + Results.handshake + Handshake.task + Task.operand]
    mov esi, dword ptr [results + Results.handshake + Handshake.task + Task.put]
    call operate
    test eax, eax
    jz .owner
    call shows_nothing
    cmp eax, 1
    je .next
    push NO_CPU
    push eax
    push 1
    push ViolationKind.TORN
    call note
    jmp .next
.owner:
    ; no other CPU may be here: the guarded counter is read, and written a little later
    mov dword ptr [holders + 4 * ecx], ebp
    lock inc dword ptr [entries + 4 * ecx]
    mov eax, dword ptr [guarded + 4 * ecx]
    mov edx, GUARD_PAUSES
.work:
    pause
    dec edx
    jnz .work
    inc eax
    mov dword ptr [guarded + 4 * ecx], eax
{{ count64("Cpu.takes") }}
    mov eax, dword ptr [holders + 4 * ecx]
    cmp eax, ebp
    je .release
    push eax
    push eax
    push ebp
    push ViolationKind.DUPLICATE
    call note
.release:
    xor eax, eax
    cmp dword ptr [results + Results.handshake + Handshake.task + Task.store], store_64
    je .whole
    call dword ptr [results + Results.handshake + Handshake.task + Task.store]
    jmp .next
.whole:
    ; two plain stores would show the others a lock that is half given back
    call dword ptr [results + Results.handshake + Handshake.task + Task.put]
.next:
    pause
    dec dword ptr [esp]
    jnz .try
    pop eax
    ret

; in: EBX phase, EBP plan row; out: CF set if a cell did not stay as it was
; clobbers: EAX, ECX, EDX, ESI, EDI
mutex_judge:
{% call look_at_finals(".counters") %}
    cmp dword ptr [finals + 4 * esi], 0
{% endcall %}
    mov eax, dword ptr [finals + 4 * esi]
    test eax, eax
    jz .next
    cmp eax, 1
    jne .torn
{{ witness("STALE", 0, "eax", "NO_CPU") }}
    jmp .next
.torn:
{{ witness("TORN", 0, "eax", "NO_CPU") }}
.next:
{{ next_cell(".cell") | trim("\n") }}
.counters:
    xor esi, esi
.counter:
    mov eax, dword ptr [entries + 4 * esi]
    mov edx, dword ptr [guarded + 4 * esi]
    cmp eax, edx
    je .same
{{ witness("DUPLICATE", "eax", "edx", "NO_CPU") }}
.same:
{{ next_cell(".counter") | trim("\n") }}
    call take_notes
    clc
.return:
    ret
