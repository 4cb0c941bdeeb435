; The original program's loop, for comparison only: CPU 0 exchanges a token into one cell and waits until it has been
; taken, every other CPU exchanges 0 into that cell without a pause, one line is printed a round. It hangs when a token
; is lost, which is why kgen does it differently. Stands in for experiments/token.asm.
{% for form in forms %}
put_{{ form.routine }}:
consume_exchange_{{ form.routine }}:
consume_read_{{ form.routine }}:
    ret
{% endfor %}

halt_consumers:
    mov dword ptr [results + Results.handshake + Handshake.halt], 1
    ret

; in: EBX this CPU's entry
consumer_main:
    mov edi, dword ptr [results + Results.handshake + Handshake.address]
    test edi, edi
    jnz .try
    pause
    jmp consumer_main
.try:
    cmp dword ptr [results + Results.handshake + Handshake.halt], 0
    jne final_park
    xor eax, eax
    xchg dword ptr [edi], eax
    test eax, eax
    jz .try
    inc dword ptr [ebx + Cpu.takes]
    jmp .try

; in: EAX index of the phase; does not return
run_phase:
    imul ebp, eax, Plan.SIZE
    add ebp, plan
    mov dword ptr [results + Results.phase + Phase.role], Role.CASE
    rdtsc
    mov dword ptr [phase_start], eax
    mov dword ptr [phase_start + 4], edx
    call put_table_header
    mov edi, dword ptr [ebp + Plan.address]
    mov dword ptr [edi], 0
    mov dword ptr [results + Results.handshake + Handshake.address], edi
.round:
    mov edi, dword ptr [ebp + Plan.address]
    mov eax, 1
    xchg dword ptr [edi], eax
    inc dword ptr [results + Results.cpu + Cpu.puts]
.taken:
    mov ebx, results + Results.cpu + Cpu.SIZE
    mov ecx, CPUS_NEEDED - 1
    xor eax, eax
.sum:
    add eax, dword ptr [ebx + Cpu.takes]
    add ebx, Cpu.SIZE
    dec ecx
    jnz .sum
    cmp eax, dword ptr [results + Results.cpu + Cpu.puts]
    je .print
    pause
    jmp .taken
.print:
    call put_table_row
    mov eax, dword ptr [results + Results.cpu + Cpu.puts]
    cmp eax, dword ptr [ebp + Plan.rounds]
    jb .round
    mov dword ptr [results + Results.phase + Phase.rounds], eax
    rdtsc
    sub eax, dword ptr [phase_start]
    sbb edx, dword ptr [phase_start + 4]
    mov dword ptr [results + Results.phase + Phase.ticks], eax
    mov dword ptr [results + Results.phase + Phase.ticks + 4], edx
    mov dword ptr [results + Results.phase + Phase.status], PhaseStatus.DONE
    mov eax, KernelState.FINISHED
    jmp finish
