; The BSP's course through the whole run. Never returns.
main:
    ; the results block: first its shape, then its magic, so that a reader never takes half a header for a whole one
    mov dword ptr [results + Results.version], LAYOUT_VERSION
    mov dword ptr [results + Results.size], Results.SIZE
    mov dword ptr [results + Results.cpus_needed], CPUS_NEEDED
    mov dword ptr [results + Results.cpus_found], 1
    mov esi, build_id
    mov edi, results + Results.build_id
    mov ecx, BUILD_ID_BYTES
    rep movsb
    mov dword ptr [results + Results.magic], {{ "%#x" | format(magic_low) }}
    mov dword ptr [results + Results.magic + 4], {{ "%#x" | format(magic_high) }}
    mov dword ptr [results + Results.cpu + Cpu.state], CpuState.STARTED
    ; until the clock is measured a generous guess bounds every wait
    mov dword ptr [results + Results.ticks_per_ms], {{ "%#x" | format(guess_ticks_per_ms) }}
    call screen_clear
    call faults_init
    ; both interrupt controllers masked: the kernel polls, an interrupt could only disturb
    mov al, 0xFF
    out 0xA1, al
    out 0x21, al
    call serial_init
    ; before the first word: without a clock the port's patience ends after so many polls, however busy the host is
    call clock_init
    call announce_boot
    mov esi, vga_text
    call vga_mode
    call screen_init
    mov dword ptr [results + Results.state], KernelState.STARTING_CPUS
    call apic_init
    call sleep_init
    call screen_show
    call start_cpus
    call announce_cpus
    mov eax, KernelState.TOO_FEW_CPUS
    mov ecx, dword ptr [results + Results.cpus_found]
    cmp ecx, CPUS_NEEDED
    jb .too_few
    mov dword ptr [results + Results.state], KernelState.RUNNING
{% if suite %}
    call put_tap_plan
{% endif %}
{% if budget_ms %}
    mov eax, {{ budget_ms }}
    mov ebx, budget_deadline
    call set_deadline
{% endif %}
    xor ebx, ebx
.phase:
    mov eax, ebx
    call run_group
    cmp dword ptr [results + Results.stop], 0
    jne .stopped
    add ebx, eax
    cmp ebx, PHASES
    jb .phase
    mov eax, KernelState.FINISHED
    jmp finish
.too_few:
    ; one that faulted on its way explains more than its absence does
    cmp dword ptr [results + Results.faults], 0
    jne report_faults
    push eax
    mov esi, sentence_no_apic
    cmp dword ptr [apic_base], 0
    je .why
    mov esi, sentence_silent
    mov eax, dword ptr [madt_cpus]
    cmp eax, CPUS_NEEDED
    jae .why
    mov esi, sentence_too_few
    mov eax, CPUS_NEEDED
.why:
    push eax
    push CPUS_NEEDED
    push dword ptr [results + Results.cpus_found]
    call put_sentence
    add esp, 12
    pop eax
    jmp finish
.stopped:
    mov eax, KernelState.STOPPED

; The end of every run: the closing line, then rest.
; in: EAX kernel state. Does not return.
finish:
    mov esp, stacks + STACK_SIZE
    push eax
    ; CPUs that did not park are left as they are, for the debugger to see
    cmp eax, KernelState.TOO_FEW_CPUS
    jae .halted
    call halt_crew
.halted:
{% if not suite %}
    mov edx, dword ptr [esp]
    xor eax, eax
    call record_code
{% endif %}
    ; the results stay on the screen; the closing line comes last, because nothing may happen after it
    mov eax, dword ptr [esp]
    call screen_finish
    mov eax, dword ptr [esp]
    push dword ptr [log_crc]
    push dword ptr [results + Results.cpus_found]
    push eax
    push format_end
    call record
    add esp, 16
    call serial_flush
    pop eax
    ; the state goes last: a reader that sees it may take everything else as final
    mov dword ptr [results + Results.cpu + Cpu.state], CpuState.HALTED
    mov dword ptr [results + Results.state], eax
    mov edx, dword ptr [debug_exit_port]
    test edx, edx
    jz final_park
    out dx, eax
final_park:
    cli
    hlt
    jmp final_park

announce_boot:
    push PHASES
    push dword ptr [results + Results.boot_path]
{% for word in range(4, -1, -1) %}
    mov eax, dword ptr [build_id + {{ 4 * word }}]
    bswap eax
    push eax
{% endfor %}
    push text_digest
    push text_case
    push text_version
    push format_boot
    call record
    add esp, 44
    mov esi, text_spec
.part:
    push esi
    push format_spec
    call record
    add esp, 8
.skip:
    lodsb
    test al, al
    jnz .skip
    cmp byte ptr [esi], 0
    jne .part
    ret

announce_cpus:
    push dword ptr [results + Results.ticks_per_ms]
    push dword ptr [results + Results.clock]
    push dword ptr [results + Results.x2apic]
    push CPUS_NEEDED
    push dword ptr [results + Results.cpus_found]
    push format_cpus
    call record
    add esp, 24
    ret
