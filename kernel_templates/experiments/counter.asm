; The counter experiment: all CPUs add the same constant to each cell.
{% from "macros.asm" import look_at_finals, next_cell, witness %}

; Gives each cell a start value of its own. in: EBP plan row; clobbers: EAX, ECX, EDX, ESI, EDI
counter_prepare:
    mov eax, dword ptr [results + Results.handshake + Handshake.repeat]
    imul eax, dword ptr [results + Results.handshake + Handshake.walkers]
    mov dword ptr [counter_total], eax
    ; a value without a mark was returned to no CPU
    imul eax, dword ptr [results + Results.handshake + Handshake.cells]
    mov ecx, eax
    mov edi, owners
    xor eax, eax
    rep stosb
    xor esi, esi
    mov edi, dword ptr [results + Results.handshake + Handshake.address]
.cell:
    mov eax, dword ptr [next_token]
    add eax, TOKEN_STEP
    mov dword ptr [next_token], eax
    and eax, dword ptr [results + Results.handshake + Handshake.task + Task.cell_mask]
    mov dword ptr [starts + 4 * esi], eax
    call dword ptr [results + Results.handshake + Handshake.task + Task.store]
    add edi, dword ptr [results + Results.handshake + Handshake.task + Task.stride]
    inc esi
    cmp esi, dword ptr [results + Results.handshake + Handshake.cells]
    jb .cell
    ret

; in: EBX this CPU's entry, ECX cell, EDI its address; clobbers: EAX, EDX, EBP, ESI
counter_visit:
    mov eax, dword ptr [results + Results.handshake + Handshake.repeat]
    call count_operations
    push eax
    ; this cell's marks
    mov ebp, dword ptr [counter_total]
    imul ebp, ecx
    add ebp, owners
.again:
    mov eax, dword ptr [results + Results.handshake + Handshake.task + Task.operand]
    mov esi, dword ptr [results + Results.handshake + Handshake.task + Task.put]
    call operate
    cmp dword ptr [results + Results.handshake + Handshake.task + Task.returns], 0
    je .next
    ; the number of the addition that found this value
    mov edx, eax
    sub eax, dword ptr [starts + 4 * ecx]
    imul eax, dword ptr [results + Results.handshake + Handshake.task + Task.inverse]
    and eax, dword ptr [results + Results.handshake + Handshake.task + Task.cell_mask]
    cmp eax, dword ptr [counter_total]
    jae .foreign
    ; the mark is this CPU's number, from 1 on
    push edx
    mov edx, eax
    call cpu_index
    inc eax
    xchg byte ptr [ebp + edx], al
    pop edx
    test al, al
    jz .next
    movzx eax, al
    dec eax
    push eax
    push edx
    push edx
    push ViolationKind.DUPLICATE
    call note
    jmp .next
.foreign:
    push NO_CPU
    push edx
    push dword ptr [starts + 4 * ecx]
    push ViolationKind.TORN
    call note
.next:
    dec dword ptr [esp]
    jnz .again
    pop eax
    ret

; in: EBX phase, EBP plan row; out: CF set if a cell did not stay as it was
; clobbers: EAX, ECX, EDX, ESI, EDI
counter_judge:
{% call look_at_finals(".good") %}
    call .missing
{% endcall %}
    call .missing
    je .next
    ja .more
    ; so many updates are missing: one is described, all are counted
    mov ecx, dword ptr [counter_total]
    sub ecx, eax
    dec ecx
    add dword ptr [ebx + Phase.lost], ecx
    adc dword ptr [ebx + Phase.lost + 4], 0
    call .expected
{{ witness("LOST", "eax", "dword ptr [finals + 4 * esi]", "NO_CPU") }}
    jmp .next
.more:
    call .expected
{{ witness("TORN", "eax", "dword ptr [finals + 4 * esi]", "NO_CPU") }}
.next:
{{ next_cell(".cell") | trim("\n") }}
.good:
    call take_notes
    clc
.return:
    ret
; how many additions the cell shows, compared with how many there were. in: ESI cell; out: EAX, flags
.missing:
    mov eax, dword ptr [finals + 4 * esi]
    sub eax, dword ptr [starts + 4 * esi]
    imul eax, dword ptr [results + Results.handshake + Handshake.task + Task.inverse]
    and eax, dword ptr [results + Results.handshake + Handshake.task + Task.cell_mask]
    cmp eax, dword ptr [counter_total]
    ret
; the value it should have. in: ESI cell; out: EAX; clobbers: EDX
.expected:
    mov eax, dword ptr [counter_total]
    imul eax, dword ptr [ebp + Plan.step]
    add eax, dword ptr [starts + 4 * esi]
    and eax, dword ptr [results + Results.handshake + Handshake.task + Task.cell_mask]
    ret
