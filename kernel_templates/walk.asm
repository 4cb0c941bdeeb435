; A walk: every CPU that takes part, the BSP too, goes over the same cells and does its work on each (Task.visit). Each of
; its operations is logged, and draws a ticket before and after it, by which live.asm finds the operations that met.

; One batch. in: EBX phase, EBP plan row; out: CF set if an AP did not park; clobbers: EAX, ECX, EDX, ESI, EDI
walk_batch:
    mov eax, dword ptr [ebp + Plan.cells]
    mov dword ptr [results + Results.handshake + Handshake.cells], eax
    ; The styles take turns, and half of the batches are of the one that has fewer live ones. Whether a batch was violated
    ; plays no part.
    mov ecx, dword ptr [ebx + Phase.batches]
    inc dword ptr [ebx + Phase.batches]
    mov eax, ecx
    and eax, 1
    test ecx, 4
    jz .style
    mov edx, dword ptr [ebx + Phase.style + StyleCount.live]
    cmp edx, dword ptr [ebx + Phase.style + StyleCount.SIZE + StyleCount.live]
    je .style
    mov eax, Style.FREE
    jb .style
    mov eax, Style.RACE
.style:
    mov dword ptr [results + Results.handshake + Handshake.style], eax
    ; its number among those of its style
    imul eax, eax, StyleCount.SIZE
    mov ecx, dword ptr [ebx + eax + Phase.style + StyleCount.batches]
    add ecx, dword ptr [ebx + eax + Phase.style + StyleCount.blind]
    ; Tickets may serialise what they measure: some batches draw none, and their violations are compared.
    lea eax, [ecx + 1]
    xor edx, edx
    test eax, BLIND_EVERY - 1
    setnz dl
    mov dword ptr [results + Results.handshake + Handshake.tickets], edx
    inc dword ptr [results + Results.handshake + Handshake.batch]
    ; all CPUs in the first of some batches, otherwise two: see choose_walkers; short and longer batches alternate
    mov eax, ecx
    xor edx, edx
    mov esi, ALL_EVERY
    div esi
    mov edi, edx
    xor edx, edx
    mov esi, 3
    div esi
    ; one that cannot run at once with the others holds all of them up in each operation of a race
    test edi, edi
    jnz .size
    xor edx, edx
.size:
    push ecx
    mov ecx, edx
    mov eax, FIRST_REPEAT
    shl eax, cl
    pop ecx
    cmp eax, dword ptr [ebp + Plan.repeat]
    jbe .repeat
    mov eax, dword ptr [ebp + Plan.repeat]
.repeat:
    mov dword ptr [results + Results.handshake + Handshake.repeat], eax
    call choose_walkers
    call dword ptr [ebp + Plan.prepare]
    mov dword ptr [sequence], 0
    mov dword ptr [race_line], 0
    mov eax, dword ptr [results + Results.ticks_per_ms]
    imul eax, eax, RACE_MS
    mov dword ptr [race_ticks], eax
    mov eax, dword ptr [results + Results.handshake + Handshake.walkers]
    mov dword ptr [results + Results.handshake + Handshake.muster], eax
    call release_crew
    ; the BSP's own part
    mov eax, dword ptr [results + Results.handshake + Handshake.batch]
    cmp eax, dword ptr [results + Results.cpu + Cpu.walks]
    jne .wait
    push ebx
    push ebp
    mov ebx, results + Results.cpu
    mov dword ptr [ebx + Cpu.cell], 0
    mov dword ptr [ebx + Cpu.started], eax
    call muster
    call dword ptr [results + Results.handshake + Handshake.task + Task.work]
    mov eax, dword ptr [results + Results.handshake + Handshake.batch]
    mov dword ptr [ebx + Cpu.ack], eax
    pop ebp
    pop ebx
.wait:
    mov edi, Cpu.ack
    jmp wait_crew

; Which CPUs take part? All in some batches, otherwise two that change from batch to batch: where real CPUs are fewer than
; virtual ones a third would only take the time in which two could meet. Some experiments are for two alone.
; in: EBP plan row, ECX the batch's number, EDI 0 where all may take part
; out: Handshake.walkers, Cpu.walks, Cpu.rank, the range; clobbers: EAX, ECX, EDX, ESI
choose_walkers:
    mov esi, dword ptr [results + Results.handshake + Handshake.batch]
    or edi, dword ptr [ebp + Plan.pairs]
    jz .all
    mov eax, ecx
    xor edx, edx
    mov ecx, CPUS_NEEDED
    div ecx
    ; EDX and the next one
    mov dword ptr [results + Results.handshake + Handshake.walkers], 2
    imul eax, edx, Cpu.SIZE
    mov dword ptr [results + Results.cpu + eax + Cpu.walks], esi
    mov dword ptr [results + Results.cpu + eax + Cpu.rank], 0
    lea ecx, [edx + 1]
    cmp ecx, CPUS_NEEDED
    jb .second
    xor ecx, ecx
.second:
    imul ecx, ecx, Cpu.SIZE
    mov dword ptr [results + Results.cpu + ecx + Cpu.walks], esi
    mov dword ptr [results + Results.cpu + ecx + Cpu.rank], 1
    ; the BSP is in no range
    test edx, edx
    jnz .from
    mov eax, ecx
.from:
    test ecx, ecx
    jnz .to
    mov ecx, eax
.to:
    add eax, results + Results.cpu
    mov dword ptr [range_first], eax
    add ecx, results + Results.cpu + Cpu.SIZE
    mov dword ptr [range_end], ecx
    ret
.all:
    mov dword ptr [results + Results.handshake + Handshake.walkers], CPUS_NEEDED
    mov ecx, results + Results.cpu
    xor eax, eax
.cpu:
    mov dword ptr [ecx + Cpu.walks], esi
    mov dword ptr [ecx + Cpu.rank], eax
    inc eax
    add ecx, Cpu.SIZE
    cmp ecx, results + Results.cpu + CPUS_NEEDED * Cpu.SIZE
    jb .cpu
    jmp all_crew

; A CPU's part. in: EBX its entry; clobbers: EAX, ECX, EDX, EBP, ESI, EDI
walk_work:
    mov dword ptr [ebx + Cpu.patience], 0
    call log_of
    mov dword ptr [ebx + Cpu.operation], eax
    mov edi, dword ptr [results + Results.handshake + Handshake.address]
    xor ecx, ecx
.cell:
    mov dword ptr [ebx + Cpu.cell], ecx
    call dword ptr [results + Results.handshake + Handshake.task + Task.visit]
    add edi, dword ptr [results + Results.handshake + Handshake.task + Task.stride]
    inc ecx
    cmp ecx, dword ptr [results + Results.handshake + Handshake.cells]
    jb .cell
    mov dword ptr [ebx + Cpu.cell], ecx
    ; those that have more to do need not wait for this one
    lock add dword ptr [race_line], LOG_OPERATIONS
    ret

; Where a CPU's log begins. in: EBX its entry; out: EAX
log_of:
    call cpu_index
    imul eax, eax, LOG_BYTES
    add eax, operations
    ret

; One operation. in: ESI the routine, EAX and EDX its operands, EBX this CPU's entry, ECX cell, EDI its address
; out: EAX what the routine returns; clobbers: EDX
operate:
    call set_out
    push ebp
    mov ebp, dword ptr [ebx + Cpu.operation]
    mov dword ptr [ebp + Operation.cell], ecx
    mov dword ptr [ebp + Operation.shows], 1
    cmp dword ptr [results + Results.handshake + Handshake.tickets], 0
    je .blind
    push eax
    mov eax, 1
    lock xadd dword ptr [sequence], eax
    mov dword ptr [ebp + Operation.begin], eax
    pop eax
    call esi
    mov edx, 1
    lock xadd dword ptr [sequence], edx
    mov dword ptr [ebp + Operation.end], edx
    jmp .logged
.blind:
    call esi
.logged:
    mov dword ptr [ebp + Operation.found], eax
    add dword ptr [ebx + Cpu.operation], Operation.SIZE
    pop ebp
    ret

; Tells of this CPU's last operation that it changed nothing. in: EBX its entry; clobbers: EDX
shows_nothing:
    mov edx, dword ptr [ebx + Cpu.operation]
    mov dword ptr [edx - Operation.SIZE + Operation.shows], 0
    ret

; When an operation begins, by the batch's style. in: EBX this CPU's entry; clobbers: nothing
set_out:
    push eax
    push ecx
    push edx
    push esi
    cmp dword ptr [results + Results.handshake + Handshake.style], Style.RACE
    je .race
    ; free: after a random part of the time that some accesses take
    imul eax, dword ptr [ebx + Cpu.random], RANDOM_FACTOR
    add eax, RANDOM_STEP
    mov dword ptr [ebx + Cpu.random], eax
    shr eax, 16
    mov ecx, dword ptr [results + Results.handshake + Handshake.latency]
    imul ecx, ecx, FREE_ACCESSES
    mul ecx
    shrd eax, edx, 16
    mov esi, eax
    rdtsc
    mov ecx, eax
.delay:
    rdtsc
    sub eax, ecx
    cmp eax, esi
    jb .delay
    jmp .go
.race:
    ; all that take part wait for each other; where one is late for long, the others go on without it
    lock inc dword ptr [race_line]
    mov esi, dword ptr [results + Results.handshake + Handshake.walkers]
    add esi, dword ptr [ebx + Cpu.patience]
    mov dword ptr [ebx + Cpu.patience], esi
    mov eax, dword ptr [race_line]
    sub eax, esi
    jns .go
    rdtsc
    mov ecx, eax
.line:
    ; QEMU's TCG leaves its loop at every PAUSE and takes its lock: a CPU that does that at each look comes too late
    mov edx, LOOKS_A_PAUSE
.look:
    mov eax, dword ptr [race_line]
    sub eax, esi
    jns .go
    dec edx
    jnz .look
    pause
    rdtsc
    sub eax, ecx
    cmp eax, dword ptr [race_ticks]
    jb .line
.go:
    pop esi
    pop edx
    pop ecx
    pop eax
    ret

; Counts operations. in: EBX a CPU's entry, EAX how many; clobbers: nothing
count_operations:
    add dword ptr [ebx + Cpu.puts], eax
    adc dword ptr [ebx + Cpu.puts + 4], 0
    ret

; Stores EAX into every cell of the batch. clobbers: ESI, EDI
fill_cells:
    xor esi, esi
    mov edi, dword ptr [results + Results.handshake + Handshake.address]
.cell:
    call dword ptr [results + Results.handshake + Handshake.task + Task.store]
    add edi, dword ptr [results + Results.handshake + Handshake.task + Task.stride]
    inc esi
    cmp esi, dword ptr [results + Results.handshake + Handshake.cells]
    jb .cell
    ret

; Reads all cells into finals. clobbers: EAX, EDI, ESI
read_finals:
    xor esi, esi
    mov edi, dword ptr [results + Results.handshake + Handshake.address]
.cell:
    call dword ptr [results + Results.handshake + Handshake.task + Task.load]
    mov dword ptr [finals + 4 * esi], eax
    add edi, dword ptr [results + Results.handshake + Handshake.task + Task.stride]
    inc esi
    cmp esi, dword ptr [results + Results.handshake + Handshake.cells]
    jb .cell
    ret

; Sees that the cells stay as they were read: a write that was still on its way would show. Called before what they
; hold counts as a violation. in: EBX phase, EBP plan row; out: CF set if one has changed; clobbers: EAX, ECX, EDX, ESI, EDI
finals_stay:
    ; A witness of the case needs more patience than what is only counted.
    mov eax, LOSS_CHECK_MS
    cmp dword ptr [ebp + Plan.role], Role.POWER
    je .stay
    mov eax, LOSS_PROOF_MS
    cmp dword ptr [ebx + Phase.witnesses + 4 * ViolationKind.LOST], WITNESSES_PER_KIND
    jb .stay
    mov eax, LOSS_CHECK_MS
.stay:
    call wait_ms
    xor esi, esi
    mov edi, dword ptr [results + Results.handshake + Handshake.address]
.cell:
    call dword ptr [results + Results.handshake + Handshake.task + Task.load]
    cmp eax, dword ptr [finals + 4 * esi]
    jne .moved
    add edi, dword ptr [results + Results.handshake + Handshake.task + Task.stride]
    inc esi
    cmp esi, dword ptr [results + Results.handshake + Handshake.cells]
    jb .cell
    clc
    ret
.moved:
    stc
    ret
