; The token experiment. The BSP is the producer, every other CPU of the case a consumer.
;
; A batch: the producer names unique tokens, opens the batch (Cpu.go) and exchanges one token into each cell, one
; after the other, while the consumers, going over the same cells, exchange 0 into them. A consumer leaves a cell when
; it got something, or when an exchange that began after the put was complete (Handshake.filled, read before) found it
; empty: then, if exchanges are atomic, somebody else has the token. So nobody waits for a token that has vanished.
; When all consumers have acknowledged, nobody touches a cell and the producer accounts for every token.

{% macro exchange(form, prefix) %}
{% for statement in form.exchange %}
    {{ statement | replace("{L}", prefix) }}
{% endfor %}
{% endmacro %}
{% macro count64(operand, register="ebx") %}
    add dword ptr [{{ register }} + {{ operand }}], 1
    adc dword ptr [{{ register }} + {{ operand }} + 4], 0
{% endmacro %}
{% macro consumed(form, prefix) %}
{# after an exchange: EAX what was found, EBP the cells that were filled before it, ECX this cell #}
    test eax, eax
    jz .empty
    ; the record of the take comes first: whoever sees the count or the acknowledgement can rely on it
    mov dword ptr [esi], eax
    mov dword ptr [ebx + Cpu.token], eax
{{ count64("Cpu.takes") }}
{{ count64("Cpu.tries") }}
    jmp .advance
.empty:
{{ count64("Cpu.tries") }}
    cmp ebp, ecx
    ja .taken_by_other
    ; The cell is not filled yet. A few exchanges in a row meet the producer's if it is about to come; more would only
    ; keep it from coming, so look elsewhere between them.
    pause
    sub dword ptr [ebx + Cpu.patience], 1
    jns .try
    mov edx, POLL_LOOKS
.look:
    pause
    cmp ecx, dword ptr [results + Results.handshake + Handshake.filled]
    jb .try
    dec edx
    jnz .look
    jmp .try
.taken_by_other:
    mov dword ptr [esi], 0
.advance:
    add esi, 4
    add edi, 4
    inc ecx
    mov dword ptr [ebx + Cpu.patience], POLL_EXCHANGES
    mov dword ptr [ebx + Cpu.cell], ecx
    cmp ecx, dword ptr [results + Results.handshake + Handshake.cells]
    jb .try
    ret
{% endmacro %}
{% for form in forms %}
; {{ form.name }}. in: EDI first cell; clobbers: EAX, ECX, EDX, EDI
put_{{ form.routine }}:
    xor ecx, ecx
.next:
    call await_consumer
    mov eax, dword ptr [tokens + 4 * ecx]
{{ exchange(form, ".put_") }}
    mov dword ptr [olds + 4 * ecx], eax
    inc ecx
    ; ordered behind the exchange: stores become visible in program order
    mov dword ptr [results + Results.handshake + Handshake.filled], ecx
    add edi, 4
    cmp ecx, dword ptr [results + Results.handshake + Handshake.cells]
    jb .next
    ret

; {{ form.name }}, exchanging at once. in: EBX this CPU's entry, ESI its takes, EDI first cell
; clobbers: EAX, ECX, EDX, EBP, ESI, EDI
consume_exchange_{{ form.routine }}:
    xor ecx, ecx
.try:
    mov ebp, dword ptr [results + Results.handshake + Handshake.filled]
    xor eax, eax
{{ exchange(form, ".take_") }}
{{ consumed(form, ".take_") }}

; {{ form.name }}, reading first. The read is a hint: what counts is the exchange. Registers as above.
consume_read_{{ form.routine }}:
    xor ecx, ecx
.try:
    mov ebp, dword ptr [results + Results.handshake + Handshake.filled]
    mov eax, dword ptr [edi]
    test eax, eax
    jnz .exchange
    cmp ebp, ecx
    ja .exchange
    pause
    jmp .try
.exchange:
    xor eax, eax
{{ exchange(form, ".take_") }}
{{ consumed(form, ".take_") }}
{% endfor %}
; Holds the producer back until one of the consumers in range polls the cell it is about to fill, so that the two
; exchanges meet; an empty range holds nobody. Only a hint: after AWAIT_POLLS looks in one batch it goes on.
; in: ECX cell; clobbers: EDX, ESI
await_consumer:
    mov edx, dword ptr [await_budget]
.again:
    mov esi, dword ptr [range_first]
    cmp esi, dword ptr [range_end]
    jae .here
.look:
    cmp ecx, dword ptr [esi + Cpu.cell]
    jbe .here
    add esi, Cpu.SIZE
    cmp esi, dword ptr [range_end]
    jb .look
    test edx, edx
    jz .here
    pause
    dec edx
    jmp .again
.here:
    mov dword ptr [await_budget], edx
    ret

; Where an AP of the case spends its life. in: EBX its entry in the CPU table, EDI its index
consumer_main:
    imul eax, edi, 4 * MAX_BATCH
    add eax, takes - 4 * MAX_BATCH
    push eax
{% if poll == "exchange" %}
    push results + Results.handshake + Handshake.consume_exchange
{% elif poll == "read" %}
    push results + Results.handshake + Handshake.consume_read
{% else %}
    ; odd consumers exchange at once, even ones read first
    mov eax, results + Results.handshake + Handshake.consume_exchange
    test edi, 1
    jnz .chosen
    mov eax, results + Results.handshake + Handshake.consume_read
.chosen:
    push eax
{% endif %}
    xor ebp, ebp
    mov dword ptr [ebx + Cpu.state], CpuState.WAITING
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
    mov dword ptr [ebx + Cpu.patience], POLL_EXCHANGES
    mov dword ptr [ebx + Cpu.cell], 0
    mov dword ptr [ebx + Cpu.started], eax
    ; In a race all leave the line together. Only a hint: nobody waits for ever.
    cmp dword ptr [results + Results.handshake + Handshake.muster], 0
    je .start
    lock dec dword ptr [results + Results.handshake + Handshake.muster]
    mov ecx, MUSTER_POLLS
.line:
    cmp dword ptr [results + Results.handshake + Handshake.muster], 0
    jle .start
    pause
    dec ecx
    jnz .line
.start:
    mov edi, dword ptr [results + Results.handshake + Handshake.address]
    mov esi, dword ptr [esp + 4]
    mov eax, dword ptr [esp]
    push ebp
    call dword ptr [eax]
    pop ebp
    ; nothing of the batch may still be on its way when the acknowledgement is seen
    lock or dword ptr [esp], 0
    mov dword ptr [ebx + Cpu.state], CpuState.WAITING
    mov dword ptr [ebx + Cpu.ack], ebp
    call wake_bsp
    jmp .wait
.halt:
    mov dword ptr [ebx + Cpu.state], CpuState.HALTED
    jmp final_park

; Lets the consumers rest. Waits, with a bound, until they do. clobbers: EAX, EBX, ECX, EDX, ESI
halt_consumers:
    mov dword ptr [results + Results.handshake + Handshake.halt], 1
    call wake_consumers
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

; Puts the consumers in range to work on the batch. clobbers: EAX, ECX, EDX, ESI
release_consumers:
    mov eax, dword ptr [results + Results.handshake + Handshake.batch]
    mov esi, dword ptr [range_first]
.cpu:
    mov dword ptr [esi + Cpu.go], eax
    add esi, Cpu.SIZE
    cmp esi, dword ptr [range_end]
    jb .cpu
    jmp wake_consumers

; Makes all consumers the range. clobbers: nothing
all_consumers:
    mov dword ptr [range_first], results + Results.cpu + Cpu.SIZE
    mov dword ptr [range_end], results + Results.cpu + CPUS_NEEDED * Cpu.SIZE
    ret

; Waits until every consumer in range has written the current batch number to one of its fields.
; in: EDI the field's offset in Cpu; out: CF set if time ran out first; clobbers: EAX, ECX, EDX, ESI
wait_consumers:
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
    call wake_consumers
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

; One phase from its announcement to its result. in: EAX index; clobbers: EAX, ECX, EDX, ESI, EDI, EBP
run_phase:
    push ebx
    imul ebp, eax, Plan.SIZE
    add ebp, plan
    imul ebx, eax, Phase.SIZE
    add ebx, results + Results.phase
    mov eax, dword ptr [ebp + Plan.role]
    mov dword ptr [ebx + Phase.role], eax
    mov eax, dword ptr [ebp + Plan.address]
    mov dword ptr [ebx + Phase.address], eax
    mov dword ptr [results + Results.handshake + Handshake.address], eax
    mov eax, dword ptr [ebp + Plan.cells]
    mov dword ptr [ebx + Phase.cells], eax
    mov eax, dword ptr [ebp + Plan.consume_exchange]
    mov dword ptr [results + Results.handshake + Handshake.consume_exchange], eax
    mov eax, dword ptr [ebp + Plan.consume_read]
    mov dword ptr [results + Results.handshake + Handshake.consume_read], eax
    mov dword ptr [ebx + Phase.status], PhaseStatus.RUNNING
    mov dword ptr [results + Results.cpu + Cpu.state], CpuState.WORKING
    ; every phase counts from zero
    xor eax, eax
    mov esi, results + Results.cpu
.reset:
{% for counter in ("puts", "takes", "tries") %}
    mov dword ptr [esi + Cpu.{{ counter }}], eax
    mov dword ptr [esi + Cpu.{{ counter }} + 4], eax
{% endfor %}
    add esi, Cpu.SIZE
    cmp esi, results + Results.cpu + CPUS_NEEDED * Cpu.SIZE
    jb .reset
    mov dword ptr [next_token], eax
    mov dword ptr [row_pending], eax
    push dword ptr [ebp + Plan.rounds]
    push dword ptr [ebp + Plan.cells]
    push dword ptr [ebp + Plan.address]
    push dword ptr [ebp + Plan.label]
    push dword ptr [results + Results.phase_index]
    push format_phase
    call record
    add esp, 24
    mov edi, dword ptr [ebp + Plan.address]
    mov ecx, dword ptr [ebp + Plan.cells]
    call probe_storage
    jc .no_storage
    cmp dword ptr [ebp + Plan.vga], 0
    je .latency
    call probe_vga
    mov dword ptr [ebx + Phase.decode], eax
.latency:
    call probe_latency
    mov dword ptr [ebx + Phase.latency], eax
    push eax
    push dword ptr [ebx + Phase.decode]
    push dword ptr [results + Results.phase_index]
    push format_probe
    call record
    add esp, 16
    cmp dword ptr [ebp + Plan.announce], 0
    je .begin
    call put_table_header
.begin:
    rdtsc
    mov dword ptr [phase_start], eax
    mov dword ptr [phase_start + 4], edx
    call restart_row_deadline
.batch:
    call batch_size
    call run_batch
    jc .not_parked
    call judge_batch
    jc .unstable
    call maybe_row
    call serial_check_stop
    cmp dword ptr [results + Results.stop], 0
    jne .stopped
    call violated_enough
    jnc .done
    mov eax, dword ptr [ebp + Plan.rounds]
    test eax, eax
    jz .batch
    cmp dword ptr [ebx + Phase.rounds + 4], 0
    jne .done
    cmp dword ptr [ebx + Phase.rounds], eax
    jb .batch
.done:
    mov eax, PhaseStatus.DONE
    jmp .end
.stopped:
    mov eax, PhaseStatus.STOPPED
    jmp .end
.unstable:
    mov eax, PhaseStatus.UNSTABLE
    jmp .end
.no_storage:
    mov eax, PhaseStatus.NO_STORAGE
    jmp .status
.end:
    push eax
    rdtsc
    sub eax, dword ptr [phase_start]
    sbb edx, dword ptr [phase_start + 4]
    mov dword ptr [ebx + Phase.ticks], eax
    mov dword ptr [ebx + Phase.ticks + 4], edx
    cmp dword ptr [ebp + Plan.announce], 0
    je .no_row
    cmp dword ptr [row_pending], 0
    je .no_row
    call put_table_row
.no_row:
    pop eax
.status:
    mov dword ptr [ebx + Phase.status], eax
    mov dword ptr [results + Results.cpu + Cpu.state], CpuState.WAITING
    call report_phase
    pop ebx
    ret
.not_parked:
    ; some CPU may still be at work on the cells: nothing more can be said, nothing more may be tried
    mov dword ptr [ebx + Phase.status], PhaseStatus.NOT_PARKED
    call report_phase
    mov eax, KernelState.NOT_PARKED
    jmp finish

; Has a power control shown what it is there to show? in: EBX phase, EBP plan row; out: CF clear if so
; clobbers: EAX, EDX
violated_enough:
    cmp dword ptr [ebp + Plan.enough], 0
    je .no
    xor eax, eax
    xor edx, edx
{% for kind in ("lost", "duplicate", "torn", "stale") %}
    add eax, dword ptr [ebx + Phase.{{ kind }}]
    adc edx, dword ptr [ebx + Phase.{{ kind }} + 4]
{% endfor %}
    sub eax, dword ptr [ebp + Plan.enough]
    sbb edx, 0
    ret
.no:
    stc
    ret

; Copies the CPUs' counters into the phase and prints them and the result. in: EBX phase
; clobbers: EAX, ECX, EDX, ESI, EDI
report_phase:
    push ebp
    xor ebp, ebp
    mov esi, results + Results.cpu
    lea edi, [ebx + Phase.cpu]
.cpu:
{% for counter in ("puts", "takes", "tries") %}
{% for half in (0, 4) %}
    mov eax, dword ptr [esi + Cpu.{{ counter }} + {{ half }}]
    mov dword ptr [edi + Counters.{{ counter }} + {{ half }}], eax
{% endfor %}
{% endfor %}
    lea eax, [edi + Counters.tries]
    push eax
    lea eax, [edi + Counters.takes]
    push eax
    lea eax, [edi + Counters.puts]
    push eax
    push ebp
    push dword ptr [results + Results.phase_index]
    push format_count
    call record
    add esp, 24
    add esi, Cpu.SIZE
    add edi, Counters.SIZE
    inc ebp
    cmp ebp, CPUS_NEEDED
    jb .cpu
{% for field in ("ticks", "foreign", "left", "stale", "torn", "duplicate", "lost", "rounds") %}
    lea eax, [ebx + Phase.{{ field }}]
    push eax
{% endfor %}
    push dword ptr [ebx + Phase.status]
    push dword ptr [results + Results.phase_index]
    push format_result
    call record
    add esp, 44
    pop ebp
    ret

; How many cells does the next batch cover? The first rounds come one by one, because each is printed.
; in: EBX phase, EBP plan row; out: ECX; clobbers: EAX, EDX
batch_size:
    mov ecx, dword ptr [ebp + Plan.cells]
{% if print_every %}
    ; up to the next row
    call row_distance
    cmp ecx, eax
    jbe .limit
    mov ecx, eax
{% else %}
    cmp dword ptr [ebx + Phase.rounds + 4], 0
    jne .limit
    cmp dword ptr [ebx + Phase.rounds], SINGLE_ROUNDS
    jae .limit
    mov ecx, 1
{% endif %}
.limit:
    mov eax, dword ptr [ebp + Plan.rounds]
    test eax, eax
    jz .done
    sub eax, dword ptr [ebx + Phase.rounds]
    cmp ecx, eax
    jbe .done
    mov ecx, eax
.done:
    ret
{% if print_every %}

; Rounds up to the next row. in: EBX phase; out: EAX, 1 to PRINT_EVERY; clobbers: EDX
row_distance:
    push ecx
    mov ecx, PRINT_EVERY
    xor edx, edx
    mov eax, dword ptr [ebx + Phase.rounds + 4]
    div ecx
    mov eax, dword ptr [ebx + Phase.rounds]
    div ecx
    mov eax, ecx
    sub eax, edx
    pop ecx
    ret
{% endif %}

; in: nothing; clobbers: EAX, ECX, EDX
restart_row_deadline:
    push ebx
    mov ebx, row_deadline
    mov eax, ROW_MS
    call set_deadline
    pop ebx
    ret

; Prints a row when one is due. in: EBX phase, EBP plan row; clobbers: EAX, ECX, EDX, ESI, EDI
maybe_row:
    mov dword ptr [row_pending], 1
    cmp dword ptr [ebp + Plan.announce], 0
    je .return
{% if print_every %}
    call row_distance
    cmp eax, PRINT_EVERY
    jne .return
{% else %}
    cmp dword ptr [ebx + Phase.rounds + 4], 0
    jne .timed
    cmp dword ptr [ebx + Phase.rounds], SINGLE_ROUNDS
    jbe .print
.timed:
    push ebx
    mov ebx, row_deadline
    call check_deadline
    pop ebx
    jc .return
    call restart_row_deadline
.print:
{% endif %}
    mov dword ptr [row_pending], 0
    call put_table_row
.return:
    ret

; One batch. in: EBX phase, EBP plan row, ECX cells; out: CF set if a consumer did not park
; clobbers: EAX, ECX, EDX, ESI, EDI
run_batch:
    mov dword ptr [results + Results.handshake + Handshake.cells], ecx
    ; tokens: multiples of an odd number visit every value but 0 before one recurs, and all their bytes differ, so
    ; that a mixture of two of them is none
    xor esi, esi
    mov eax, dword ptr [next_token]
.token:
    add eax, TOKEN_STEP
    jnz .unique
    add eax, TOKEN_STEP
.unique:
    mov dword ptr [tokens + 4 * esi], eax
    inc esi
    cmp esi, ecx
    jb .token
    mov dword ptr [next_token], eax
    mov dword ptr [results + Results.handshake + Handshake.filled], 0
    mov dword ptr [await_budget], AWAIT_POLLS
    mov dword ptr [results + Results.handshake + Handshake.muster], 0
    inc dword ptr [results + Results.handshake + Handshake.batch]
    ; Violations need exchanges that meet, and where real CPUs are fewer than virtual ones not all of them run at once.
    ; So batches come in three styles, in turn.
    mov eax, dword ptr [results + Results.handshake + Handshake.batch]
    xor edx, edx
    mov ecx, 3
    div ecx
    test edx, edx
    jz .melee
    dec edx
    jz .meeting

    ; A race: the producer fills all cells alone, then the consumers go over them together and meet each other, which
    ; shows duplicates.
    mov dword ptr [range_first], 0
    mov dword ptr [range_end], 0
    call .put
    mov dword ptr [results + Results.handshake + Handshake.muster], CPUS_NEEDED - 1
    call all_consumers
    call release_consumers
    jmp .collect

    ; A meeting: the producer fills each cell when one consumer polls it, and their exchanges meet, which loses tokens.
    ; The others come when all is filled.
.meeting:
    mov eax, dword ptr [partner]
    add eax, PARTNER_STEP * Cpu.SIZE
    cmp eax, results + Results.cpu + CPUS_NEEDED * Cpu.SIZE
    jb .chosen
    mov eax, results + Results.cpu + Cpu.SIZE
.chosen:
    mov dword ptr [partner], eax
    mov dword ptr [range_first], eax
    add eax, Cpu.SIZE
    mov dword ptr [range_end], eax
    call release_consumers
    mov edi, Cpu.started
    call wait_consumers
    jc .return
    call .put
    call all_consumers
    call release_consumers
    jmp .collect

    ; A melee: everybody at once, the producer no faster than the first consumer.
.melee:
    call all_consumers
    call release_consumers
    mov edi, Cpu.started
    call wait_consumers
    jc .return
    call .put

.collect:
    mov edi, Cpu.ack
    call wait_consumers
    jmp .return
.put:
    mov edi, dword ptr [ebp + Plan.address]
    call dword ptr [ebp + Plan.put]
    mov eax, dword ptr [results + Results.handshake + Handshake.cells]
    add dword ptr [results + Results.cpu + Cpu.puts], eax
    adc dword ptr [results + Results.cpu + Cpu.puts + 4], 0
    ret
.return:
    ret

; Is a value that is not the cell's token one that was put earlier? in: EAX value; out: CF set if so
; clobbers: EAX, EDX
{# the round of a token is the token times the inverse of the step, modulo 2^32 #}
is_earlier_token:
    imul eax, eax, TOKEN_INVERSE
    ; after 2^32 rounds every value has been a token
    cmp dword ptr [ebx + Phase.rounds + 4], 0
    jne .yes
    test eax, eax
    jz .no
    cmp dword ptr [ebx + Phase.rounds], eax
    jae .yes
.no:
    clc
    ret
.yes:
    stc
    ret

{% macro witness(kind, value, cpu, other="NO_CPU") %}
    push {{ other }}
    push {{ cpu }}
    push {{ value }}
    push ViolationKind.{{ kind }}
    call violation
{% endmacro %}
; Accounts for every token of the batch: each must be in exactly one place.
; in: EBX phase; out: CF set if a cell did not keep what the producer alone stored there
; clobbers: EAX, ECX, EDX, ESI, EDI
judge_batch:
    push ebp
    sub esp, 20
{% set takers = "dword ptr [esp]" %}
{% set first = "dword ptr [esp + 4]" %}
{% set foreign = "dword ptr [esp + 8]" %}
{% set any_missing = "dword ptr [esp + 12]" %}
{% set scratch = "dword ptr [esp + 16]" %}
    mov {{ any_missing }}, 0
    xor esi, esi
    mov edi, dword ptr [ebx + Phase.address]
.cell:
    mov {{ takers }}, 0
    mov {{ foreign }}, 0
    mov {{ first }}, NO_CPU
    mov byte ptr [missing + esi], 0
    ; what the producer's exchange found: the cell was empty when the batch began and consumers only write 0
    mov eax, dword ptr [olds + 4 * esi]
    test eax, eax
    jz .takes
    mov ebp, eax
    call is_earlier_token
    jc .old_stale
{{ witness("TORN", "ebp", 0) }}
    jmp .takes
.old_stale:
{{ witness("STALE", "ebp", 0) }}
.takes:
    xor ecx, ecx
    lea ebp, [takes + 4 * esi]
.consumer:
    inc ecx
    cmp ecx, CPUS_NEEDED
    jae .rest
    mov eax, dword ptr [ebp]
    add ebp, 4 * MAX_BATCH
    test eax, eax
    jz .consumer
    cmp eax, dword ptr [tokens + 4 * esi]
    jne .other_value
    inc {{ takers }}
    cmp {{ takers }}, 1
    jne .twice
    mov {{ first }}, ecx
    jmp .consumer
.twice:
    mov edx, {{ first }}
    push ecx
{{ witness("DUPLICATE", "eax", "edx", "ecx") }}
    pop ecx
    jmp .consumer
.other_value:
    inc {{ foreign }}
{{ count64("Phase.foreign") }}
    mov {{ scratch }}, eax
    call is_earlier_token
    mov eax, {{ scratch }}
    push ecx
    jc .again
{{ witness("TORN", "eax", "ecx") }}
    jmp .counted
.again:
{{ witness("DUPLICATE", "eax", "ecx") }}
.counted:
    pop ecx
    jmp .consumer
.rest:
    ; what the cell holds now that all are parked
    mov ebp, dword ptr [edi]
    test ebp, ebp
    jnz .full
    cmp {{ takers }}, 0
    jne .next
    ; nobody has it and it is not here. First see that the cell keeps what is stored in it
    mov byte ptr [missing + esi], 1
    mov {{ any_missing }}, 1
    mov eax, dword ptr [tokens + 4 * esi]
    not eax
    mov dword ptr [edi], eax
    jmp .next
.full:
    mov dword ptr [edi], 0
    cmp {{ takers }}, 0
    jne .resurrected
{{ count64("Phase.left") }}
    ; a consumer that came away with another value has left the token behind: that is no violation of its own
    cmp {{ foreign }}, 0
    jne .next
.resurrected:
    mov edx, {{ first }}
    cmp ebp, dword ptr [tokens + 4 * esi]
    je .still_there
    mov eax, ebp
    call is_earlier_token
    mov edx, {{ first }}
    jc .still_there
{{ witness("TORN", "ebp", "edx") }}
    jmp .next
.still_there:
{{ witness("STALE", "ebp", "edx") }}
.next:
    add edi, 4
    inc esi
    cmp esi, dword ptr [results + Results.handshake + Handshake.cells]
    jb .cell
    cmp {{ any_missing }}, 0
    je .settled
    ; A witness of a loss needs the cell to have kept a pattern for long; what is only counted needs it for a moment.
    mov eax, LOSS_PROOF_MS
    cmp dword ptr [ebx + Phase.witnesses + 4 * ViolationKind.LOST], WITNESSES_PER_KIND
    jb .stay
    mov eax, LOSS_CHECK_MS
.stay:
    call wait_ms
    xor esi, esi
    mov edi, dword ptr [ebx + Phase.address]
.missing:
    cmp byte ptr [missing + esi], 0
    je .found
    mov eax, dword ptr [tokens + 4 * esi]
    not eax
    cmp eax, dword ptr [edi]
    mov dword ptr [edi], 0
    jne .unstable
{{ witness("LOST", 0, 0) }}
.found:
    add edi, 4
    inc esi
    cmp esi, dword ptr [results + Results.handshake + Handshake.cells]
    jb .missing
.settled:
    mov eax, dword ptr [results + Results.handshake + Handshake.cells]
    add dword ptr [ebx + Phase.rounds], eax
    adc dword ptr [ebx + Phase.rounds + 4], 0
    add esp, 20
    pop ebp
    clc
    ret
.unstable:
    add esp, 20
    pop ebp
    stc
    ret

; Counts a violation and, for the first few of its kind, records and prints its witness.
; in: EBX phase, ESI cell; on the stack: kind, value, CPU, other CPU (taken off); clobbers: EAX, ECX, EDX
violation:
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
    mov eax, dword ptr [tokens + 4 * esi]
    mov dword ptr [edi + Witness.token], eax
    mov eax, dword ptr [esp + 12]
    mov dword ptr [edi + Witness.value], eax
    mov eax, dword ptr [esp + 16]
    mov dword ptr [edi + Witness.cpu], eax
    mov eax, dword ptr [esp + 20]
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
    ret 16
