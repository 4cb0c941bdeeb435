; A walk: every CPU, the BSP too, goes over the same cells and does its work on each (Task.visit).

; One batch. in: EBX phase, EBP plan row; out: CF set if an AP did not park; clobbers: EAX, ECX, EDX, ESI, EDI
walk_batch:
    mov eax, dword ptr [ebp + Plan.cells]
    mov dword ptr [results + Results.handshake + Handshake.cells], eax
    ; Start small, so that what fails at once ends at once; stay small for some time, because a batch is one chance for an
    ; event; and grow again where many operations are asked for, because meeting takes time.
    mov eax, dword ptr [results + Results.handshake + Handshake.repeat]
    mov ecx, dword ptr [phase_batches]
    test eax, eax
    jnz .begun
    mov eax, FIRST_REPEAT
.begun:
    test ecx, GROW_EVERY - 1
    jnz .grown
    add eax, eax
.grown:
    cmp eax, dword ptr [ebp + Plan.repeat]
    jbe .small
    mov eax, dword ptr [ebp + Plan.repeat]
.small:
    mov dword ptr [results + Results.handshake + Handshake.repeat], eax
    inc dword ptr [results + Results.handshake + Handshake.batch]
    call choose_walkers
    call dword ptr [ebp + Plan.prepare]
    mov eax, dword ptr [walkers]
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

; Who takes part? Everybody in the first batch and in every fourth, else two CPUs, which change from batch to batch: where
; real CPUs are fewer than virtual ones a third would only take the time in which two could meet.
; out: walkers, Cpu.walks, the range; clobbers: EAX, ECX, EDX, ESI
choose_walkers:
    mov ecx, dword ptr [phase_batches]
    inc dword ptr [phase_batches]
    mov esi, dword ptr [results + Results.handshake + Handshake.batch]
    test ecx, 3
    jz .all
    mov eax, ecx
    xor edx, edx
    mov ecx, CPUS_NEEDED
    div ecx
    ; EDX and the next one
    mov dword ptr [walkers], 2
    imul eax, edx, Cpu.SIZE
    mov dword ptr [results + Results.cpu + eax + Cpu.walks], esi
    lea ecx, [edx + 1]
    cmp ecx, CPUS_NEEDED
    jb .second
    xor ecx, ecx
.second:
    imul ecx, ecx, Cpu.SIZE
    mov dword ptr [results + Results.cpu + ecx + Cpu.walks], esi
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
    mov dword ptr [walkers], CPUS_NEEDED
    mov ecx, results + Results.cpu
.cpu:
    mov dword ptr [ecx + Cpu.walks], esi
    add ecx, Cpu.SIZE
    cmp ecx, results + Results.cpu + CPUS_NEEDED * Cpu.SIZE
    jb .cpu
    jmp all_crew

; A CPU's part. in: EBX its entry; clobbers: EAX, ECX, EDX, EBP, ESI, EDI
walk_work:
    mov dword ptr [ebx + Cpu.patience], TOGETHER_LOOKS
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
    ret

; Holds a CPU back until another one has come as far, so that their operations meet. Only a hint: after TOGETHER_LOOKS
; looks in one batch it goes on. in: EBX its entry, ECX cell; clobbers: EAX, EDX
keep_together:
    xor eax, eax
.again:
    mov edx, results + Results.cpu
.look:
    cmp edx, ebx
    je .next
    ; only one that takes part, and has begun
    push eax
    mov eax, dword ptr [edx + Cpu.started]
    cmp eax, dword ptr [results + Results.handshake + Handshake.batch]
    pop eax
    jne .next
    cmp ecx, dword ptr [edx + Cpu.cell]
    jbe stagger
.next:
    add edx, Cpu.SIZE
    cmp edx, results + Results.cpu + CPUS_NEEDED * Cpu.SIZE
    jb .look
    inc eax
    ; QEMU's TCG leaves its loop at every PAUSE and takes its lock: whoever does that at each look comes too late
    test eax, LOOKS_A_PAUSE - 1
    jnz .again
    sub dword ptr [ebx + Cpu.patience], LOOKS_A_PAUSE
    js out_of_patience
    pause
    jmp .again

; As above, for one certain CPU. in: EBX this CPU's entry, EDX the other's, ECX cell; clobbers: EAX
keep_with:
    xor eax, eax
.again:
    push eax
    mov eax, dword ptr [edx + Cpu.started]
    cmp eax, dword ptr [results + Results.handshake + Handshake.batch]
    pop eax
    jne .wait
    cmp ecx, dword ptr [edx + Cpu.cell]
    jbe stagger
.wait:
    inc eax
    ; QEMU's TCG leaves its loop at every PAUSE and takes its lock: whoever does that at each look comes too late
    test eax, LOOKS_A_PAUSE - 1
    jnz .again
    sub dword ptr [ebx + Cpu.patience], LOOKS_A_PAUSE
    js out_of_patience
    pause
    jmp .again

out_of_patience:
    mov dword ptr [ebx + Cpu.patience], 0
    ret

; Two CPUs that set out together at the same moment may miss each other every time. So the one that has come last, and
; has not waited itself, lets the other one begin, and follows now sooner and now later: by up to 16 accesses' time.
; in: EAX how often this CPU has looked in vain, ECX cell; clobbers: EAX
stagger:
    test eax, eax
    jnz .return
    push edx
    push esi
    push edi
    mov edi, dword ptr [results + Results.handshake + Handshake.batch]
    add edi, ecx
    and edi, STAGGERS - 1
    imul edi, dword ptr [results + Results.handshake + Handshake.latency]
    shr edi, 1
    rdtsc
    mov esi, eax
.wait:
    rdtsc
    sub eax, esi
    cmp eax, edi
    jb .wait
    pop edi
    pop esi
    pop edx
.return:
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
; hold counts as a violation. in: EBX phase; out: CF set if one has changed; clobbers: EAX, ECX, EDX, ESI, EDI
finals_stay:
    ; A witness needs more patience than what is only counted.
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
