; Violations: counted by kind, and the first of each kind recorded and printed as witnesses.

; Counts a violation and, for the first few of its kind, records and prints its witness.
; in: EBX phase, ESI cell; on the stack: kind, token, value, CPU, other CPU (taken off); clobbers: EAX, ECX, EDX
violation:
    mov byte ptr [struck + esi], 1
    mov eax, dword ptr [esp + 4]
    add dword ptr [ebx + 8 * eax + Phase.lost], 1
    adc dword ptr [ebx + 8 * eax + Phase.lost + 4], 0
    cmp dword ptr [ebx + 4 * eax + Phase.witnesses], WITNESSES_PER_KIND
    jae .return
    inc dword ptr [ebx + 4 * eax + Phase.witnesses]
    push edi
    mov ecx, dword ptr [results + Results.witness_count]
    imul edi, ecx, Witness.SIZE
    add edi, results + Results.witness
    mov dword ptr [edi + Witness.kind], eax
    mov dword ptr [edi + Witness.cell], esi
    mov eax, dword ptr [results + Results.phase_index]
    mov dword ptr [edi + Witness.phase], eax
    mov eax, dword ptr [esp + 12]
    mov dword ptr [edi + Witness.token], eax
    mov eax, dword ptr [esp + 16]
    mov dword ptr [edi + Witness.value], eax
    mov eax, dword ptr [esp + 20]
    mov dword ptr [edi + Witness.cpu], eax
    mov eax, dword ptr [esp + 24]
    mov dword ptr [edi + Witness.other], eax
    ; rounds count from 1
    lea eax, [esi + 1]
    xor edx, edx
    add eax, dword ptr [ebx + Phase.rounds]
    adc edx, dword ptr [ebx + Phase.rounds + 4]
    mov dword ptr [edi + Witness.round], eax
    mov dword ptr [edi + Witness.round + 4], edx
    rdtsc
    mov dword ptr [edi + Witness.tsc], eax
    mov dword ptr [edi + Witness.tsc + 4], edx
    ; the count goes last: a debugger never sees half an entry
    inc dword ptr [results + Results.witness_count]
    lea eax, [edi + Witness.tsc]
    push eax
    push dword ptr [edi + Witness.other]
    push dword ptr [edi + Witness.cpu]
    push dword ptr [edi + Witness.value]
    push dword ptr [edi + Witness.token]
    push dword ptr [edi + Witness.cell]
    lea eax, [edi + Witness.round]
    push eax
    push dword ptr [edi + Witness.kind]
    push dword ptr [edi + Witness.phase]
    push ecx
    push format_witness
    call record
    add esp, 44
    pop edi
.return:
    ret 20

; Notes a violation that a CPU sees while it works; the BSP takes it over when all are parked.
; in: EBX the CPU's entry, ECX cell; on the stack: kind, token, value, other CPU (taken off); clobbers: EAX, EDX
note:
    push edi
    call tally_of
    mov eax, dword ptr [esp + 8]
    inc dword ptr [edi + 4 * eax + Tally.count]
    mov edx, dword ptr [edi + Tally.events]
    cmp edx, EVENTS
    jae .return
    inc dword ptr [edi + Tally.events]
    imul edx, edx, Event.SIZE
    lea edi, [edi + edx + Tally.event]
    mov dword ptr [edi + Event.kind], eax
    mov dword ptr [edi + Event.cell], ecx
{% for part in ("token", "value", "other") %}
    mov eax, dword ptr [esp + {{ 12 + 4 * loop.index0 }}]
    mov dword ptr [edi + Event.{{ part }}], eax
{% endfor %}
.return:
    pop edi
    ret 16

; in: EBX a CPU's entry; out: EDI its tally; clobbers: EAX
tally_of:
    call cpu_index
    imul edi, eax, Tally.SIZE
    add edi, tallies
    ret

; Takes over what the CPUs noted in the batch, and adds up their operations. in: EBX phase
; clobbers: EAX, ECX, EDX, ESI, EDI
take_notes:
    push ebp
    xor ebp, ebp
.cpu:
    imul edi, ebp, Tally.SIZE
    add edi, tallies
    xor ecx, ecx
.event:
    cmp ecx, dword ptr [edi + Tally.events]
    jae .counted
    push ecx
    imul ecx, ecx, Event.SIZE
    lea ecx, [edi + ecx + Tally.event]
    mov esi, dword ptr [ecx + Event.cell]
    mov eax, dword ptr [ecx + Event.kind]
    dec dword ptr [edi + 4 * eax + Tally.count]
    push dword ptr [ecx + Event.other]
    push ebp
    push dword ptr [ecx + Event.value]
    push dword ptr [ecx + Event.token]
    push eax
    call violation
    pop ecx
    inc ecx
    jmp .event
.counted:
    ; those that were not described
    mov dword ptr [edi + Tally.events], 0
{% for kind in ("lost", "duplicate", "torn", "stale") %}
    mov eax, dword ptr [edi + Tally.count + {{ 4 * loop.index0 }}]
    add dword ptr [ebx + Phase.{{ kind }}], eax
    adc dword ptr [ebx + Phase.{{ kind }} + 4], 0
    mov dword ptr [edi + Tally.count + {{ 4 * loop.index0 }}], 0
{% endfor %}
    mov eax, dword ptr [edi + Tally.facts]
    add dword ptr [ebx + Phase.foreign], eax
    adc dword ptr [ebx + Phase.foreign + 4], 0
    mov dword ptr [edi + Tally.facts], 0
    inc ebp
    cmp ebp, CPUS_NEEDED
    jb .cpu
    xor eax, eax
    xor edx, edx
    mov esi, results + Results.cpu
.sum:
    add eax, dword ptr [esi + Cpu.puts]
    adc edx, dword ptr [esi + Cpu.puts + 4]
    add esi, Cpu.SIZE
    cmp esi, results + Results.cpu + CPUS_NEEDED * Cpu.SIZE
    jb .sum
    mov dword ptr [ebx + Phase.rounds], eax
    mov dword ptr [ebx + Phase.rounds + 4], edx
    pop ebp
    ret
