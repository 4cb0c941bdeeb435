; Local APIC and the start of the application processors (SDM volume 3, 8.4 and 10).

; Enables the BSP's local APIC. out: apic_base, Results.x2apic; clobbers: EAX, EBX, ECX, EDX
apic_init:
    mov eax, 1
    cpuid
    ; CPUID.1:EDX bit 9: there is an APIC
    bt edx, 9
    jnc .none
    mov ecx, MSR_APIC_BASE
    rdmsr
    test eax, 1 << 11
    jnz .enabled
    or eax, 1 << 11
    wrmsr
.enabled:
    mov ecx, eax
    and ecx, 0xFFFFF000
    mov dword ptr [apic_base], ecx
    shr eax, 10
    and eax, 1
    mov dword ptr [results + Results.x2apic], eax
    call apic_enable
    call apic_id
    mov dword ptr [results + Results.cpu + Cpu.apic_id], eax
    cmp eax, CPU_TABLE
    jae .none
    bts dword ptr [ids_seen], eax
    ; the BSP is index 0, which is what the table holds for ids that nobody has claimed as well
.none:
    ret

; Lets this CPU's local APIC take interrupts, spurious ones as vector FFh. An AP that woke up in another mode than the
; BSP's follows it, so that interrupts are sent and acknowledged in one way everywhere (SDM volume 3, 10.12.5).
; in: Results.x2apic; clobbers: EAX, ECX, EDX
apic_enable:
    mov ecx, MSR_APIC_BASE
    rdmsr
    cmp dword ptr [results + Results.x2apic], 0
    jne .follow
    test eax, 1 << 10
    jz .xapic
    ; from x2APIC mode the way back leads through the disabled state
    and eax, 0xFFFFF3FF
    wrmsr
    or eax, 1 << 11
    wrmsr
.xapic:
    and eax, 0xFFFFF000
    or dword ptr [eax + 0xF0], 0x1FF
    ret
.follow:
    test eax, 1 << 10
    jnz .x2apic
    or eax, 3 << 10
    wrmsr
.x2apic:
    mov ecx, MSR_X2APIC_SVR
    rdmsr
    or eax, 0x1FF
    wrmsr
    ret

; This CPU's APIC id. Each CPU asks for its own mode: an AP may wake up in another one than the BSP's.
; out: EAX; clobbers: ECX, EDX
apic_id:
    mov ecx, MSR_APIC_BASE
    rdmsr
    test eax, 1 << 10
    jnz .x2apic
    and eax, 0xFFFFF000
    mov eax, dword ptr [eax + 0x20]
    shr eax, 24
    ret
.x2apic:
    mov ecx, MSR_X2APIC_ID
    rdmsr
    ret

; Sends an interprocessor interrupt. in: EAX the ICR's low half, EDX the destination id; clobbers: EAX, ECX, EDX
send_ipi:
    cmp dword ptr [results + Results.x2apic], 0
    jne .x2apic
    push ebx
    mov ebx, dword ptr [apic_base]
    mov ecx, ICR_POLLS
.busy:
    test dword ptr [ebx + 0x300], 1 << 12
    jz .idle
    pause
    dec ecx
    jnz .busy
.idle:
    shl edx, 24
    mov dword ptr [ebx + 0x310], edx
    mov dword ptr [ebx + 0x300], eax
    pop ebx
    ret
.x2apic:
    mov ecx, MSR_X2APIC_ICR
    wrmsr
    ret

; Starts every CPU: a broadcast first, then, where too few came, each id that has not checked in by itself
; (a second broadcast would reset those that run; bhyve ignores the shorthand).
; out: Results.cpus_found; clobbers: everything
start_cpus:
    cmp dword ptr [apic_base], 0
    jne .copy
    cmp dword ptr [results + Results.x2apic], 0
    je .return
.copy:
    mov esi, trampoline_image
    mov edi, TRAMPOLINE_ADDRESS
    mov ecx, trampoline_image_end - trampoline_image
    rep movsb
    ; INIT, assert, all excluding self
    mov eax, 0xC4500
    xor edx, edx
    call send_ipi
    mov eax, 10
    call wait_ms
    mov eax, 0xC4600 | TRAMPOLINE_ADDRESS >> 12
    xor edx, edx
    call send_ipi
    mov eax, 1
    call wait_ms
    ; a CPU that took the first one ignores the second
    mov eax, 0xC4600 | TRAMPOLINE_ADDRESS >> 12
    xor edx, edx
    call send_ipi
    mov eax, BROADCAST_MS
    call wait_for_cpus
    mov eax, dword ptr [results + Results.cpus_found]
    cmp eax, CPUS_NEEDED
    jae .return
    mov edi, 0x4500
    call .each
    mov eax, 10
    call wait_ms
    mov edi, 0x4600 | TRAMPOLINE_ADDRESS >> 12
    call .each
    mov eax, 1
    call wait_ms
    mov edi, 0x4600 | TRAMPOLINE_ADDRESS >> 12
    call .each
    mov eax, DIRECTED_MS
    call wait_for_cpus
.return:
    ret
; sends EDI to every id below 255 that has not checked in
.each:
    xor esi, esi
.id:
    bt dword ptr [ids_seen], esi
    jc .next
    mov eax, edi
    mov edx, esi
    call send_ipi
.next:
    inc esi
    cmp esi, 255
    jb .id
    ret

; Waits until enough CPUs have come and no more follow for SETTLE_MS. in: EAX the longest wait for enough, in ms
; clobbers: EAX, EBX, ECX, EDX, ESI
wait_for_cpus:
    mov ebx, start_deadline
    call set_deadline
.again:
    mov esi, dword ptr [results + Results.cpus_found]
    mov ebx, settle_deadline
    mov eax, SETTLE_MS
    call set_deadline
.settle:
    pause
    cmp esi, dword ptr [results + Results.cpus_found]
    jne .again
    mov ebx, settle_deadline
    call check_deadline
    jc .settle
    cmp esi, CPUS_NEEDED
    jae .done
    mov ebx, start_deadline
    call check_deadline
    jc .settle
.done:
    ret

; What an AP executes first, at TRAMPOLINE_ADDRESS.
; entry state: real mode, CS = TRAMPOLINE_ADDRESS >> 4, IP = 0; exit state: 32-bit protected mode at ap_entry
.align 16
trampoline_image:
.phase TRAMPOLINE_ADDRESS
.code16
trampoline:
    cli
    cld
    xor eax, eax
    mov ds, ax
    lgdt [trampoline_gdt_pointer]
    mov eax, cr0
    ; protection on, caches on: INIT leaves CD and NW as they were
    and eax, 0x9FFFFFFF
    or eax, 1
    mov cr0, eax
    ljmp32 CODE_SELECTOR, ap_entry
.align 4
trampoline_gdt_pointer:
    .word gdt_end - gdt - 1
    .long trampoline_gdt
.align 8
; its own copy: in 16-bit mode LGDT takes 24 bits of the base only
trampoline_gdt:
    .quad 0
    .quad 0x00CF9B000000FFFF
    .quad 0x00CF93000000FFFF
.dephase
trampoline_image_end:
.code32

; entry state: protected mode, no stack, DS still real mode's
ap_entry:
    mov eax, DATA_SELECTOR
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    lgdt [gdt_pointer]
    ; the id without a stack: apic_id is a leaf, so it is spelt out here
    mov ecx, MSR_APIC_BASE
    rdmsr
    test eax, 1 << 10
    jnz .x2apic
    and eax, 0xFFFFF000
    mov esi, dword ptr [eax + 0x20]
    shr esi, 24
    jmp .known
.x2apic:
    mov ecx, MSR_X2APIC_ID
    rdmsr
    mov esi, eax
.known:
    cmp esi, CPU_TABLE
    jae .index
    ; a CPU reset by a late INIT comes here twice and keeps its first index
    lock bts dword ptr [ids_seen], esi
    jnc .index
    movzx edi, byte ptr [index_of_id + esi]
    test edi, edi
    jnz .have
    jmp final_park
.index:
    mov edi, 1
    lock xadd dword ptr [cpus_arrived], edi
    cmp edi, CPU_TABLE
    jae final_park
    cmp esi, CPU_TABLE
    jae .have
    mov eax, edi
    mov byte ptr [index_of_id + esi], al
.have:
    imul esp, edi, STACK_SIZE
    add esp, stacks + STACK_SIZE
    ; not before there is a stack that tells whose fault it is
    lidt [idt_pointer]
    imul ebx, edi, Cpu.SIZE
    add ebx, results + Results.cpu
    mov dword ptr [ebx + Cpu.apic_id], esi
    mov dword ptr [ebx + Cpu.state], CpuState.STARTED
    call apic_enable
    ; counted only now that everything about it is in place
    cmp edi, CPUS_NEEDED
    jb .counted
    mov dword ptr [ebx + Cpu.state], CpuState.SPARE
.counted:
    cmp esi, CPU_TABLE
    jae .count
    ; only once, however often a late INIT made it come
    lock bts dword ptr [ids_counted], esi
    jc .again
.count:
    lock inc dword ptr [results + Results.cpus_found]
.again:
    cmp edi, CPUS_NEEDED
    jb crew_main
    jmp final_park
