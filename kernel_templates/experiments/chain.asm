; The chain experiment: every CPU exchanges unique values of its own into the cells and keeps what it got. Values are
; numbered: first those of the operations, CPU by CPU and in program order, then what each cell holds at first. Value
; number i of a batch is TOKEN_STEP times (chain_base + 1 + i), cut to the width, and never 0.
{% from "macros.asm" import witness %}
; Stands for the final value of a cell where its reader is noted.
.equ CHAIN_FINAL, 1

; in: EBP plan row; clobbers: EAX, ECX, EDX, ESI, EDI
chain_prepare:
    mov eax, dword ptr [results + Results.handshake + Handshake.repeat]
    imul eax, dword ptr [results + Results.handshake + Handshake.cells]
    mov dword ptr [chain_each], eax
    imul eax, dword ptr [results + Results.handshake + Handshake.walkers]
    mov dword ptr [chain_starts], eax
    add eax, dword ptr [results + Results.handshake + Handshake.cells]
    mov ecx, dword ptr [chain_base]
    add ecx, dword ptr [chain_total]
    mov dword ptr [chain_total], eax
    ; as many values as there are differ; all CPUs have met before one recurs
    mov edx, dword ptr [results + Results.handshake + Handshake.task + Task.token_mask]
    cmp edx, CHAIN_TOP
    jbe .narrow
    mov edx, CHAIN_TOP
.narrow:
    add eax, ecx
    cmp eax, edx
    jb .fits
    xor ecx, ecx
.fits:
    mov dword ptr [chain_base], ecx
    xor esi, esi
    mov edi, dword ptr [results + Results.handshake + Handshake.address]
.cell:
    mov eax, dword ptr [chain_starts]
    add eax, esi
    call chain_value
    mov dword ptr [starts + 4 * esi], eax
    call dword ptr [results + Results.handshake + Handshake.task + Task.store]
    add edi, dword ptr [results + Results.handshake + Handshake.task + Task.stride]
    inc esi
    cmp esi, dword ptr [results + Results.handshake + Handshake.cells]
    jb .cell
    ret

; in: EAX a value's number; out: EAX the value
chain_value:
    add eax, dword ptr [chain_base]
    inc eax
    imul eax, eax, TOKEN_STEP
    and eax, dword ptr [results + Results.handshake + Handshake.task + Task.token_mask]
    ret

; in: EBX this CPU's entry, ECX cell, EDI its address; clobbers: EAX, EDX, EBP, ESI
chain_visit:
    mov eax, dword ptr [results + Results.handshake + Handshake.repeat]
    call count_operations
    push eax
    imul eax, ecx
    mov ebp, dword ptr [ebx + Cpu.rank]
    imul ebp, dword ptr [chain_each]
    add ebp, eax
    ; what an attempt expects: at first what the cell holds at first
    push dword ptr [starts + 4 * ecx]
.again:
    mov eax, ebp
    call chain_value
    mov esi, dword ptr [results + Results.handshake + Handshake.task + Task.put]
    cmp dword ptr [results + Results.handshake + Handshake.task + Task.operand], 0
    je .exchange
    mov edx, eax
    mov eax, dword ptr [esp]
    call operate
    xor edx, edx
    cmp eax, dword ptr [esp]
    jne .failed
    inc edx
    ; it has written: that value is what the next attempt expects
    mov eax, ebp
    call chain_value
.failed:
    mov dword ptr [esp], eax
    jmp .log
.exchange:
    call operate
    mov edx, 1
.log:
    mov esi, dword ptr [ebx + Cpu.operation]
    mov dword ptr [esi - Operation.SIZE + Operation.index], ebp
    mov dword ptr [esi - Operation.SIZE + Operation.wrote], edx
    inc ebp
    dec dword ptr [esp + 4]
    jnz .again
    add esp, 8
    ret

; The number of a value. in: EAX value; out: EAX its number, CF clear if nothing wrote it in this batch
chain_number:
    imul eax, eax, TOKEN_INVERSE
    and eax, dword ptr [results + Results.handshake + Handshake.task + Task.token_mask]
    dec eax
    sub eax, dword ptr [chain_base]
    cmp eax, dword ptr [chain_total]
    jae .none
    cmp eax, dword ptr [chain_starts]
    jae .written
    cmp dword ptr [chain_writers + 4 * eax], 0
    je .none
.written:
    stc
    ret
.none:
    clc
    ret

; The cell that a value was written to. in: EAX its number; out: EDX
chain_cell:
    mov edx, eax
    sub edx, dword ptr [chain_starts]
    jae .return
    mov edx, dword ptr [chain_writers + 4 * eax]
    mov edx, dword ptr [edx + Operation.cell]
.return:
    ret

; The CPU that did an operation. in: EAX the operation; out: EAX its number; clobbers: ECX, EDX
chain_cpu:
    sub eax, operations
    xor edx, edx
    mov ecx, LOG_BYTES
    div ecx
    ret

; Calls a routine for each operation of the batch. in: EDI the routine, which gets the operation in ESI and may change
; EAX, ECX and EDX; clobbers: EAX, ECX, EDX, ESI
chain_each_operation:
    push ebx
    push ebp
    mov ebp, results + Results.cpu
.cpu:
    mov eax, dword ptr [results + Results.handshake + Handshake.batch]
    cmp eax, dword ptr [ebp + Cpu.walks]
    jne .next
    mov ebx, ebp
    call log_of
    mov esi, eax
    imul ebx, dword ptr [results + Results.phase_index], Phase.SIZE
    add ebx, results + Results.phase
.operation:
    cmp esi, dword ptr [ebp + Cpu.operation]
    jae .next
    call edi
    add esi, Operation.SIZE
    jmp .operation
.next:
    add ebp, Cpu.SIZE
    cmp ebp, results + Results.cpu + CPUS_NEEDED * Cpu.SIZE
    jb .cpu
    pop ebp
    pop ebx
    ret

; in: ESI operation; clobbers: EAX
chain_note_writer:
    cmp dword ptr [esi + Operation.wrote], 0
    je .return
    mov eax, dword ptr [esi + Operation.index]
    mov dword ptr [chain_writers + 4 * eax], esi
    inc dword ptr [chain_wrote]
.return:
    ret

; What an operation got. in: EBX phase, ESI operation; clobbers: EAX, ECX, EDX
chain_note_reader:
    mov eax, dword ptr [esi + Operation.found]
    call chain_number
    jnc .torn
    call chain_cell
    cmp edx, dword ptr [esi + Operation.cell]
    jne .torn
    ; an attempt that failed wrote back what it found: the value is there for another one
    cmp dword ptr [esi + Operation.wrote], 0
    je .return
    mov ecx, dword ptr [chain_readers + 4 * eax]
    test ecx, ecx
    jnz .twice
    mov dword ptr [chain_readers + 4 * eax], esi
.return:
    ret
.twice:
    mov eax, ecx
    call chain_cpu
    push esi
    push eax
    mov eax, esi
    call chain_cpu
    pop edx
    mov ecx, dword ptr [esi + Operation.found]
    mov esi, dword ptr [esi + Operation.cell]
{{ witness("DUPLICATE", "ecx", "ecx", "edx", "eax") }}
    pop esi
    inc dword ptr [chain_bad]
    ret
.torn:
    mov eax, esi
    call chain_cpu
    push esi
    mov ecx, dword ptr [esi + Operation.found]
    mov esi, dword ptr [esi + Operation.cell]
{{ witness("TORN", 0, "ecx", "eax") }}
    pop esi
    inc dword ptr [chain_bad]
    ret

; Does the batch make one path a cell? in: EBX phase, EBP plan row; out: CF set if a cell did not stay as it was
; clobbers: EAX, ECX, EDX, ESI, EDI
chain_judge:
    mov ecx, dword ptr [chain_total]
    mov edi, chain_readers
    xor eax, eax
    rep stosd
    mov ecx, dword ptr [chain_total]
    mov edi, chain_writers
    rep stosd
    mov dword ptr [chain_wrote], eax
    mov dword ptr [chain_bad], eax
    call read_finals
    mov edi, chain_note_writer
    call chain_each_operation
    mov edi, chain_note_reader
    call chain_each_operation
    ; What is left in the cells. A write that was still on its way would make a wrong value right.
    xor esi, esi
.look:
    mov eax, dword ptr [finals + 4 * esi]
    call chain_number
    jnc .stay
    call chain_cell
    cmp edx, esi
    jne .stay
    cmp dword ptr [chain_readers + 4 * eax], 0
    jne .stay
    inc esi
    cmp esi, dword ptr [results + Results.handshake + Handshake.cells]
    jb .look
    jmp .finals
.stay:
    call finals_stay
    jc .return
.finals:
    xor esi, esi
.final:
    mov eax, dword ptr [finals + 4 * esi]
    call chain_number
    jnc .torn
    call chain_cell
    cmp edx, esi
    jne .torn
    mov ecx, dword ptr [chain_readers + 4 * eax]
    test ecx, ecx
    jnz .left
    mov dword ptr [chain_readers + 4 * eax], CHAIN_FINAL
    jmp .next_final
.left:
    ; it was got, and is still there
    mov eax, ecx
    call chain_cpu
    mov edx, dword ptr [finals + 4 * esi]
{{ witness("DUPLICATE", "edx", "edx", "eax") }}
    inc dword ptr [chain_bad]
    jmp .next_final
.torn:
    mov edx, dword ptr [finals + 4 * esi]
{{ witness("TORN", 0, "edx", "NO_CPU") }}
    inc dword ptr [chain_bad]
.next_final:
    inc esi
    cmp esi, dword ptr [results + Results.handshake + Handshake.cells]
    jb .final
    ; values that were neither got nor left
    xor edi, edi
    call chain_next_lost
    jnc .whole
    push edi
    call finals_stay
    pop edi
    jc .return
.lost:
    call chain_next_lost
    jnc .whole
    mov eax, edi
    call chain_cell
    mov esi, edx
    mov eax, NO_CPU
    cmp edi, dword ptr [chain_starts]
    jae .of_no_cpu
    mov eax, dword ptr [chain_writers + 4 * edi]
    call chain_cpu
.of_no_cpu:
    push eax
    mov eax, edi
    call chain_value
    pop ecx
    mov edx, dword ptr [finals + 4 * esi]
{{ witness("LOST", "eax", "edx", "ecx") }}
    inc dword ptr [chain_bad]
    inc edi
    jmp .lost
.whole:
    cmp dword ptr [chain_bad], 0
    jne .notes
    call chain_follow
.notes:
    call take_notes
    clc
.return:
    ret

; The next value, from a number on, that was written and has no reader. in: EDI; out: EDI its number, CF clear if there
; is none; clobbers: nothing
chain_next_lost:
    cmp edi, dword ptr [chain_total]
    jae .none
    cmp dword ptr [chain_readers + 4 * edi], 0
    jne .next
    cmp edi, dword ptr [chain_starts]
    jae .found
    cmp dword ptr [chain_writers + 4 * edi], 0
    jne .found
.next:
    inc edi
    jmp chain_next_lost
.found:
    stc
    ret
.none:
    clc
    ret

; Follows each cell's path from its first value to its final one: it must hold every operation that wrote, and respect
; time. Every value has one reader here. in: EBX phase; clobbers: EAX, ECX, EDX, ESI, EDI
chain_follow:
    push ebp
    xor edi, edi
    xor esi, esi
.cell:
    mov eax, dword ptr [chain_starts]
    add eax, esi
    ; the latest begin on the path so far
    xor ebp, ebp
.step:
    mov ecx, dword ptr [chain_readers + 4 * eax]
    cmp ecx, CHAIN_FINAL
    je .end
    inc edi
    cmp dword ptr [results + Results.handshake + Handshake.tickets], 0
    je .placed
    ; none that comes earlier on the path may have begun when this one had ended
    cmp ebp, dword ptr [ecx + Operation.end]
    ja .late
    cmp ebp, dword ptr [ecx + Operation.begin]
    jae .on
    mov ebp, dword ptr [ecx + Operation.begin]
    jmp .on
.placed:
    ; without tickets there is each CPU's own order: see below
    mov dword ptr [ecx + Operation.begin], edi
.on:
    mov eax, dword ptr [ecx + Operation.index]
    jmp .step
.end:
    inc esi
    cmp esi, dword ptr [results + Results.handshake + Handshake.cells]
    jb .cell
    ; a ring of operations that no path reaches
    mov ecx, NO_CPU
    cmp edi, dword ptr [chain_wrote]
    jne .ring
    pop ebp
    cmp dword ptr [results + Results.handshake + Handshake.tickets], 0
    je .own_order
    ret
.own_order:
    mov edi, chain_note_order
    mov dword ptr [chain_last], 0
    mov dword ptr [chain_last_log], 0
    jmp chain_each_operation
.ring:
    xor esi, esi
    xor edx, edx
    mov eax, NO_CPU
    jmp .stale
.late:
    push ecx
    mov eax, ecx
    call chain_cpu
    pop ecx
    mov edx, dword ptr [ecx + Operation.found]
.stale:
{{ witness("STALE", "edx", "edx", "eax") }}
    pop ebp
    ret

; Whether a CPU's operations stand on the path as it did them. in: EBX phase, ESI operation; clobbers: EAX, ECX, EDX
chain_note_order:
    cmp dword ptr [esi + Operation.wrote], 0
    je .return
    mov eax, esi
    call chain_cpu
    inc eax
    mov ecx, dword ptr [esi + Operation.begin]
    cmp eax, dword ptr [chain_last_log]
    mov dword ptr [chain_last_log], eax
    jne .noted
    cmp ecx, dword ptr [chain_last]
    jbe .stale
.noted:
    mov dword ptr [chain_last], ecx
.return:
    ret
.stale:
    mov dword ptr [chain_last], ecx
    dec eax
    push esi
    mov ecx, dword ptr [esi + Operation.found]
    mov esi, dword ptr [esi + Operation.cell]
{{ witness("STALE", "ecx", "ecx", "eax") }}
    pop esi
    ret
