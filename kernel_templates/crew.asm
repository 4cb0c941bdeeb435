; The crew: where an AP of the cases spends its life, and how the BSP sets it to work, waits for it and lets it rest.

; in: EBX the AP's entry in the CPU table
crew_main:
    mov dword ptr [ebx + Cpu.state], CpuState.WAITING
    mov ebp, dword ptr [ebx + Cpu.ack]
.wait:
    mov ecx, SPIN_LOOKS
.spin:
    mov eax, dword ptr [ebx + Cpu.go]
    cmp eax, ebp
    jne .work
    cmp dword ptr [results + Results.handshake + Handshake.halt], 0
    jne .halt
    pause
    dec ecx
    jnz .spin
    cmp dword ptr [results + Results.can_sleep], 0
    je .wait
    ; first announce the sleep, then look once more: either this look sees the new batch, or the BSP sees the sleeper
    mov eax, 1
    xchg dword ptr [ebx + Cpu.asleep], eax
    cmp ebp, dword ptr [ebx + Cpu.go]
    jne .awake
    cmp dword ptr [results + Results.handshake + Handshake.halt], 0
    jne .awake
    call doze
.awake:
    mov dword ptr [ebx + Cpu.asleep], 0
    jmp .wait
.work:
    mov ebp, eax
    mov dword ptr [ebx + Cpu.state], CpuState.WORKING
    mov dword ptr [ebx + Cpu.cell], 0
    mov dword ptr [ebx + Cpu.started], eax
    push ebp
    call muster
    call dword ptr [results + Results.handshake + Handshake.task + Task.work]
    pop ebp
.finished:
    ; nothing of the batch may still be on its way when the acknowledgement is seen
    lock or dword ptr [esp], 0
    mov dword ptr [ebx + Cpu.state], CpuState.WAITING
    mov dword ptr [ebx + Cpu.ack], ebp
    call wake_bsp
    jmp .wait
.halt:
    mov dword ptr [ebx + Cpu.state], CpuState.HALTED
    jmp final_park

; An AP comes here when the instruction under test raised an exception: its part of the batch is over.
; in: EBX its entry, ESP the top of its stack
crew_faulted:
    mov ebp, dword ptr [ebx + Cpu.started]
    jmp crew_main.finished

; In a race all leave the line together. Only a hint: no CPU waits for ever. clobbers: ECX
muster:
    cmp dword ptr [results + Results.handshake + Handshake.muster], 0
    jle .start
    lock dec dword ptr [results + Results.handshake + Handshake.muster]
    mov ecx, MUSTER_POLLS
.line:
    cmp dword ptr [results + Results.handshake + Handshake.muster], 0
    jle .start
    pause
    dec ecx
    jnz .line
.start:
    ret

; This CPU's index. in: EBX its entry; out: EAX
cpu_index:
    mov eax, ebx
    sub eax, results + Results.cpu
    shr eax, CPU_SHIFT
    ret

; Lets the APs rest. Waits, with a bound, until they do. clobbers: EAX, EBX, ECX, EDX, ESI
halt_crew:
    mov dword ptr [results + Results.handshake + Handshake.halt], 1
    call wake_crew
    mov eax, HALT_MS
    mov ebx, park_deadline
    call set_deadline
    mov esi, results + Results.cpu + Cpu.SIZE
.wait:
    mov ecx, dword ptr [esi + Cpu.state]
    cmp ecx, CpuState.HALTED
    je .next
    cmp ecx, CpuState.FAULTED
    je .next
    pause
    call check_deadline
    jc .wait
    ret
.next:
    add esi, Cpu.SIZE
    cmp esi, results + Results.cpu + CPUS_NEEDED * Cpu.SIZE
    jb .wait
    ret

; Puts the APs in range to work on the batch. clobbers: EAX, ECX, EDX, ESI
release_crew:
    mov eax, dword ptr [results + Results.handshake + Handshake.batch]
    mov esi, dword ptr [range_first]
.cpu:
    mov dword ptr [esi + Cpu.go], eax
    add esi, Cpu.SIZE
    cmp esi, dword ptr [range_end]
    jb .cpu
    jmp wake_crew

; Makes all APs the range. clobbers: nothing
all_crew:
    mov dword ptr [range_first], results + Results.cpu + Cpu.SIZE
    mov dword ptr [range_end], results + Results.cpu + CPUS_NEEDED * Cpu.SIZE
    ret

; Waits until every AP in range has written the current batch number to one of its fields.
; in: EDI the field's offset in Cpu; out: CF set if time ran out first; clobbers: EAX, ECX, EDX, ESI
wait_crew:
    push ebx
    mov eax, PARK_MS
    mov ebx, park_deadline
    call set_deadline
    mov esi, dword ptr [range_first]
    mov ecx, dword ptr [results + Results.handshake + Handshake.batch]
.spin:
    mov edx, SPIN_LOOKS
.look:
    cmp ecx, dword ptr [esi + edi]
    je .next
    pause
    dec edx
    jnz .look
    cmp dword ptr [results + Results.faults], 0
    jne report_faults
    call check_deadline
    jnc .late
    cmp dword ptr [results + Results.can_sleep], 0
    je .spin
    mov eax, 1
    xchg dword ptr [results + Results.cpu + Cpu.asleep], eax
    cmp ecx, dword ptr [esi + edi]
    je .awake
    push ecx
    push esi
    ; should a wake-up have been lost: once more, and not for ever
    call wake_crew
    mov eax, TIMER_TICKS
    call arm_timer
    pop esi
    pop ecx
    call doze
.awake:
    mov dword ptr [results + Results.cpu + Cpu.asleep], 0
    jmp .spin
.late:
    pop ebx
    stc
    ret
.next:
    add esi, Cpu.SIZE
    cmp esi, dword ptr [range_end]
    jb .spin
    pop ebx
    clc
    ret

; Waits until no AP is at work any more, whatever it was set to work on.
; out: CF set if time ran out first; clobbers: EAX, ECX, EDX, ESI
wait_idle:
    push ebx
    mov eax, PARK_MS
    mov ebx, park_deadline
    call set_deadline
    mov esi, results + Results.cpu + Cpu.SIZE
.look:
    mov ecx, dword ptr [esi + Cpu.go]
    cmp ecx, dword ptr [esi + Cpu.ack]
    je .next
    pause
    cmp dword ptr [results + Results.faults], 0
    jne report_faults
    call check_deadline
    jc .look
    pop ebx
    stc
    ret
.next:
    add esi, Cpu.SIZE
    cmp esi, results + Results.cpu + CPUS_NEEDED * Cpu.SIZE
    jb .look
    pop ebx
    clc
    ret
