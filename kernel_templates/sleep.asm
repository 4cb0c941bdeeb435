; Sleeping. A CPU that waits for another one halts until it is woken by an interprocessor interrupt: where CPUs are
; virtual and outnumber the real ones, a waiter that spins takes the time of those it waits for. Interrupts are enabled
; around HLT only. Whether they arrive is tried first; where they do not, everybody spins.

; The handlers return with RET, not IRET, and so leave interrupts disabled, as they are everywhere but around HLT: KVM's
; instruction emulator, which runs whole guests on some hosts, has no IRET for protected mode.
;
; STI lets no interrupt in before the next instruction has been executed (SDM volume 2, STI), but nested virtualisation
; may lose that shadow: QEMU/TCG's SVM does when KVM runs in it. An interrupt that came between STI and HLT must not
; return to the HLT, which with interrupts disabled is never left again.
{% macro return_past_halt(depth) %}
    cmp dword ptr [esp + {{ depth }}], doze.halt
    jne .return
    ; HLT is one byte long
    inc dword ptr [esp + {{ depth }}]
.return:
{% endmacro %}
{% macro handler(name, flag) %}
{{ name }}_interrupt:
    pushfd
    push eax
    push ecx
    push edx
    mov dword ptr [{{ flag }}], 1
    call end_of_interrupt
{{ return_past_halt(16) }}
    pop edx
    pop ecx
    pop eax
    popfd
    ; past the code segment and the flags
    ret 8
{% endmacro %}
; A CPU was woken.
{{ handler("wake", "woken") }}
; The BSP's timer ran out: its safety net, in case that a wake-up gets lost.
{{ handler("timer", "timer_fired") }}
; Spurious interrupts are not acknowledged (SDM volume 3, 11.9).
spurious_interrupt:
    pushfd
{{ return_past_halt(4) }}
    popfd
    ret 8

; Halts this CPU until an interrupt comes, which may have been a moment before. Interrupts are disabled before and after.
doze:
    sti
.halt:
    hlt
    cli
    ret

; clobbers: EAX, ECX, EDX
end_of_interrupt:
    cmp dword ptr [results + Results.x2apic], 0
    jne .x2apic
    mov eax, dword ptr [apic_base]
    mov dword ptr [eax + 0xB0], 0
    ret
.x2apic:
    mov ecx, MSR_X2APIC_EOI
    xor eax, eax
    xor edx, edx
    wrmsr
    ret

; Starts the BSP's timer, once, in EAX bus ticks. clobbers: EAX, ECX, EDX
arm_timer:
    cmp dword ptr [results + Results.x2apic], 0
    jne .x2apic
    mov ecx, dword ptr [apic_base]
    ; divide by 1; one shot; count
    mov dword ptr [ecx + 0x3E0], 0x0B
    mov dword ptr [ecx + 0x320], TIMER_VECTOR
    mov dword ptr [ecx + 0x380], eax
    ret
.x2apic:
    push eax
    xor edx, edx
    mov ecx, MSR_X2APIC_TIMER_DIVIDE
    mov eax, 0x0B
    wrmsr
    mov ecx, MSR_X2APIC_TIMER_LVT
    mov eax, TIMER_VECTOR
    wrmsr
    mov ecx, MSR_X2APIC_TIMER_COUNT
    pop eax
    wrmsr
    ret

; Tries both interrupts without halting. out: can_sleep; clobbers: EAX, EBX, ECX, EDX, ESI
sleep_init:
    cmp dword ptr [apic_base], 0
    je .return
    mov eax, TIMER_TICKS
    call arm_timer
    mov esi, timer_fired
    call .await
    jnc .return
    ; fixed, assert, to self
    mov eax, 0x44000 | WAKE_VECTOR
    xor edx, edx
    call send_ipi
    mov esi, woken
    call .await
    jnc .return
    mov dword ptr [results + Results.can_sleep], 1
.return:
    ret
; in: ESI flag; out: CF set once it is set, clear after SLEEP_TRIAL_MS; clobbers: EAX, EBX, ECX, EDX
.await:
    mov eax, SLEEP_TRIAL_MS
    mov ebx, wait_deadline
    call set_deadline
    sti
.spin:
    cmp dword ptr [esi], 0
    jne .came
    pause
    call check_deadline
    jc .spin
    cli
    clc
    ret
.came:
    cli
    stc
    ret

; Wakes every consumer that sleeps. The caller has just written what they wait for. clobbers: EAX, ECX, EDX, ESI
wake_crew:
    ; the write must be visible before the look: a CPU announces its sleep, then looks for the write
    lock or dword ptr [esp], 0
    mov esi, results + Results.cpu + Cpu.SIZE
.cpu:
    cmp dword ptr [esi + Cpu.asleep], 0
    je .next
    mov eax, 0x4000 | WAKE_VECTOR
    mov edx, dword ptr [esi + Cpu.apic_id]
    call send_ipi
.next:
    add esi, Cpu.SIZE
    cmp esi, results + Results.cpu + CPUS_NEEDED * Cpu.SIZE
    jb .cpu
    ret

; Wakes the BSP if it sleeps. The caller has just written what it waits for. clobbers: EAX, ECX, EDX
wake_bsp:
    lock or dword ptr [esp], 0
    cmp dword ptr [results + Results.cpu + Cpu.asleep], 0
    je .return
    mov eax, 0x4000 | WAKE_VECTOR
    mov edx, dword ptr [results + Results.cpu + Cpu.apic_id]
    jmp send_ipi
.return:
    ret
