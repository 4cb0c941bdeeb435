; Local APIC and the start of the application processors (SDM volume 3, 8.4 and 10).

; Enables the BSP's local APIC, in x2APIC mode where firmware left it so or where a CPU's id does not fit the other one.
; out: apic_base (0: there is no APIC), Results.x2apic, ids_listed and madt_cpus; clobbers: everything
apic_init:
    mov eax, 1
    cpuid
    push ecx
    ; CPUID.1:EDX bit 9: there is an APIC. Firmware that disables it clears the bit; one that comes back has its base
    ; in an MSR (bit 5), which CPUs have from family 6 on.
    bt edx, 9
    jc .there
    bt edx, 5
    jnc .none
    shr eax, 8
    and eax, 15
    cmp eax, 6
    jb .none
.there:
    mov ecx, MSR_APIC_BASE
    rdmsr
    test eax, 1 << 11
    jnz .enabled
    and eax, 0xFFFFFBFF
    or eax, 1 << 11
    wrmsr
    rdmsr
    test eax, 1 << 11
    jz .none
.enabled:
    test eax, 1 << 10
    jnz .x2apic
    mov ebx, eax
    and ebx, 0xFFFFF000
    cmp ebx, APIC_HOME
    jne .moved
    test edx, edx
    jz .placed
.moved:
    ; stay where firmware has put it only if it can be reached and is there: a version from 01h to 1Fh, zeros above, at
    ; least four local vectors (SDM volume 3, 10.4.8)
    test edx, edx
    jnz .home
    mov edx, dword ptr [ebx + 0x30]
    test dh, dh
    jnz .home
    dec dl
    cmp dl, 0x1E
    ja .home
    shr edx, 16
    cmp dl, 3
    jb .home
    cmp dl, 15
    jbe .placed
.home:
    mov ebx, APIC_HOME
    and eax, 0xFFF
    or eax, ebx
    xor edx, edx
    wrmsr
.placed:
    mov dword ptr [apic_base], ebx
    jmp .ids
.x2apic:
    mov dword ptr [apic_base], APIC_HOME
    mov dword ptr [results + Results.x2apic], 1
.ids:
    call find_madt
    ; 255 addresses everybody outside x2APIC mode, and greater ids do not fit
    cmp dword ptr [madt_top], 255
    jb .join
    ; CPUID.1:ECX bit 21
    bt dword ptr [esp], 21
    jnc .join
    mov dword ptr [results + Results.x2apic], 1
.join:
    mov ebp, .joined
    jmp apic_join
.joined:
    mov dword ptr [results + Results.cpu + Cpu.apic_id], esi
    cmp esi, APIC_IDS
    jae .none
    bts dword ptr [ids_seen], esi
    bts dword ptr [ids_counted], esi
    ; the BSP is index 0, which is also what the table holds for ids that no CPU has
.none:
    pop ecx
    ret

; Puts this CPU's local APIC into the BSP's mode and place, whatever it woke up in, and lets it take interrupts, spurious
; ones as vector FFh: interrupts are sent and acknowledged in one way everywhere (SDM volume 3, 10.12.5). Uses no stack.
; in: EBP where to go on, Results.x2apic, apic_base; out: ESI this CPU's APIC id; clobbers: EAX, EBX, ECX, EDX
apic_join:
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
    mov ebx, eax
    and ebx, 0xFFF
    or ebx, 1 << 11
    or ebx, dword ptr [apic_base]
    test edx, edx
    jnz .move
    cmp ebx, eax
    je .placed
.move:
    mov eax, ebx
    xor edx, edx
    wrmsr
.placed:
    mov ebx, dword ptr [apic_base]
    or dword ptr [ebx + 0xF0], 0x1FF
    mov esi, dword ptr [ebx + 0x20]
    shr esi, 24
    jmp ebp
.follow:
    test eax, 1 << 10
    jnz .x2apic
    ; both bits at once would be no way from the disabled state
    or eax, 1 << 11
    wrmsr
    or eax, 1 << 10
    wrmsr
.x2apic:
    mov ecx, MSR_X2APIC_SVR
    rdmsr
    or eax, 0x1FF
    wrmsr
    mov ecx, MSR_X2APIC_ID
    rdmsr
    mov esi, eax
    jmp ebp

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
; (a second broadcast would reset those that run; bhyve ignores the shorthand). Where firmware lists the CPUs, no
; other one is waited for or called by its id.
; out: Results.cpus_found; clobbers: everything
start_cpus:
    cmp dword ptr [apic_base], 0
    je .return
    mov eax, CPUS_NEEDED
    mov ecx, dword ptr [madt_cpus]
    test ecx, ecx
    jz .awaited
    cmp ecx, eax
    jae .awaited
    mov eax, ecx
.awaited:
    mov dword ptr [cpus_awaited], eax
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
; sends EDI to every id that has not checked in: of those that firmware lists, otherwise of those below 255
.each:
    mov ebx, 255
    cmp dword ptr [results + Results.x2apic], 0
    je .range
    cmp dword ptr [madt_cpus], 0
    je .range
    mov ebx, APIC_IDS
.range:
    xor esi, esi
.id:
    bt dword ptr [ids_seen], esi
    jc .next
    cmp dword ptr [madt_cpus], 0
    je .send
    bt dword ptr [ids_listed], esi
    jnc .next
.send:
    mov eax, edi
    mov edx, esi
    call send_ipi
.next:
    inc esi
    cmp esi, ebx
    jb .id
    ret

; Waits until cpus_awaited CPUs have come and no more follow for SETTLE_MS. in: EAX the longest wait for enough, in ms
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
    cmp esi, dword ptr [cpus_awaited]
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
    mov ebp, .joined
    jmp apic_join
.joined:
    ; Eight bits hold no id from 256 on: such a CPU must not be taken for another one. Leaf 0Bh has the whole id in EDX,
    ; where EBX is not 0.
    cmp dword ptr [results + Results.x2apic], 0
    jne .known
    xor eax, eax
    cpuid
    cmp eax, 0x0B
    jb .known
    mov eax, 0x0B
    xor ecx, ecx
    cpuid
    test ebx, ebx
    jz .known
    cmp edx, 255
    jbe .known
    and edx, 255
    cmp edx, esi
    je final_park
.known:
    cmp esi, APIC_IDS
    jae final_park
    ; a CPU reset by a late INIT comes here twice and keeps its first index
    lock bts dword ptr [ids_seen], esi
    jnc .index
    movzx edi, byte ptr [index_of_id + esi]
    test edi, edi
    jnz .have
    cmp dword ptr [cpus_arrived], CPU_TABLE
    jae .surplus
    jmp final_park
.index:
    mov edi, 1
    lock xadd dword ptr [cpus_arrived], edi
    cmp edi, CPU_TABLE
    jae .surplus
    mov eax, edi
    mov byte ptr [index_of_id + esi], al
.have:
    imul esp, edi, STACK_SIZE
    add esp, stacks + STACK_SIZE
    ; not before there is a stack by which a fault's CPU is found
    lidt [idt_pointer]
    imul ebx, edi, Cpu.SIZE
    add ebx, results + Results.cpu
    mov dword ptr [ebx + Cpu.apic_id], esi
    mov dword ptr [ebx + Cpu.state], CpuState.STARTED
    ; counted only now that everything about it is in place
    cmp edi, CPUS_NEEDED
    jb .counted
    mov dword ptr [ebx + Cpu.state], CpuState.SPARE
.counted:
    ; only once, however often a late INIT made it come
    lock bts dword ptr [ids_counted], esi
    jc .again
    lock inc dword ptr [results + Results.cpus_found]
.again:
    cmp edi, CPUS_NEEDED
    jb crew_main
    jmp final_park
; one more than the table has room for: it counts, and rests
.surplus:
    lock bts dword ptr [ids_counted], esi
    jc final_park
    lock inc dword ptr [results + Results.cpus_found]
    jmp final_park
