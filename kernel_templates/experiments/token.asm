{% from "macros.asm" import count64, witness %}
; The token experiment. The BSP is the producer, every other CPU of the case a consumer.
;
; A batch: the producer names unique tokens, opens the batch (Cpu.go) and exchanges one token into each cell, one
; after the other, while the consumers, going over the same cells, exchange 0 into them. A consumer leaves a cell when
; it got something, or when an exchange that began after the put was complete (Handshake.filled, read before) found it
; empty: then, if exchanges are atomic, another CPU has the token. So no CPU waits for a token that has vanished.
; When all consumers have acknowledged, no CPU touches a cell and the producer accounts for every token.

{% macro consumed() %}
{# after an exchange: EAX what was found, EBP the cells that were filled before it, ECX this cell #}
    test eax, eax
    jz .empty
    ; the record of the take comes first: a CPU that sees the count or the acknowledgement can rely on it
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
    add edi, dword ptr [results + Results.handshake + Handshake.task + Task.stride]
    inc ecx
    mov dword ptr [ebx + Cpu.patience], POLL_EXCHANGES
    mov dword ptr [ebx + Cpu.cell], ecx
    cmp ecx, dword ptr [results + Results.handshake + Handshake.cells]
    jae .over
    call jitter
    jmp .try
.over:
    ret
{% endmacro %}
; A consumer's part of a batch. in: EBX its entry; clobbers: EAX, ECX, EDX, EBP, ESI, EDI
token_work:
    mov dword ptr [ebx + Cpu.patience], POLL_EXCHANGES
    call cpu_index
    mov edx, eax
    imul esi, eax, 4 * MAX_BATCH
    add esi, takes - 4 * MAX_BATCH
    mov edi, dword ptr [results + Results.handshake + Handshake.address]
{% if poll == "exchange" %}
    jmp consume_exchange
{% elif poll == "read" %}
    jmp consume_read
{% else %}
    ; odd consumers exchange at once, even ones read first
    test edx, 1
    jz consume_read
{% endif %}

; Exchanging at once. in: EBX this CPU's entry, ESI its takes, EDI first cell
; clobbers: EAX, ECX, EDX, EBP, ESI, EDI
consume_exchange:
    xor ecx, ecx
.try:
    mov ebp, dword ptr [results + Results.handshake + Handshake.filled]
    xor eax, eax
    call dword ptr [results + Results.handshake + Handshake.task + Task.take]
{{ consumed() }}

; Reading first. The read is a hint: what counts is the exchange. Registers as above.
consume_read:
    xor ecx, ecx
.try:
    mov ebp, dword ptr [results + Results.handshake + Handshake.filled]
    call dword ptr [results + Results.handshake + Handshake.task + Task.load]
    test eax, eax
    jnz .exchange
    cmp ebp, ecx
    ja .exchange
    pause
    jmp .try
.exchange:
    xor eax, eax
    call dword ptr [results + Results.handshake + Handshake.task + Task.take]
{{ consumed() }}

; CPUs that set out for a cell together would always meet in the same way, or always miss each other. So a consumer lets
; an access's time pass, or a part of it, which differs by cell and CPU. in: EBX its entry, ECX cell; clobbers: EAX, EDX
jitter:
    push esi
    push edi
    call cpu_index
    imul eax, ecx
    and eax, JITTERS - 1
    imul eax, dword ptr [results + Results.handshake + Handshake.latency]
    shr eax, JITTER_SHIFT
    mov edi, eax
    rdtsc
    mov esi, eax
.wait:
    rdtsc
    sub eax, esi
    cmp eax, edi
    jb .wait
    pop edi
    pop esi
    ret

; The producer's part. clobbers: EAX, ECX, EDX, ESI, EDI
token_put:
    mov edi, dword ptr [results + Results.handshake + Handshake.address]
    xor ecx, ecx
.next:
    call await_consumer
    mov eax, dword ptr [tokens + 4 * ecx]
    call dword ptr [results + Results.handshake + Handshake.task + Task.put]
    mov dword ptr [olds + 4 * ecx], eax
    inc ecx
    ; ordered after the exchange: stores become visible in program order
    mov dword ptr [results + Results.handshake + Handshake.filled], ecx
    add edi, dword ptr [results + Results.handshake + Handshake.task + Task.stride]
    cmp ecx, dword ptr [results + Results.handshake + Handshake.cells]
    jb .next
    mov eax, dword ptr [results + Results.handshake + Handshake.cells]
    add dword ptr [results + Results.cpu + Cpu.puts], eax
    adc dword ptr [results + Results.cpu + Cpu.puts + 4], 0
    ret

; Holds the producer back until one of the consumers in range polls the cell it is about to fill, so that the two
; exchanges meet; an empty range holds no CPU. Only a hint: after AWAIT_POLLS looks in one batch it goes on.
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

; How many cells does the next batch cover? The first rounds come one by one, because each is printed.
; in: EBX phase, EBP plan row; out: ECX; clobbers: EAX, EDX
token_batch_size:
    mov ecx, dword ptr [ebp + Plan.cells]
    cmp dword ptr [ebp + Plan.announce], 0
    je .limit
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
    cmp dword ptr [ebp + Plan.adaptive], 0
    jne .done
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

; One batch. in: EBX phase, EBP plan row; out: CF set if a consumer did not park
; clobbers: EAX, ECX, EDX, ESI, EDI
token_batch:
    call token_batch_size
    mov dword ptr [results + Results.handshake + Handshake.cells], ecx
    ; tokens: multiples of an odd number visit every value but 0 before one recurs, and all their bytes differ, so
    ; that a mixture of two of them is none
    xor esi, esi
    mov eax, dword ptr [next_token]
.token:
    add eax, TOKEN_STEP
    mov edx, eax
    and edx, dword ptr [results + Results.handshake + Handshake.task + Task.token_mask]
    jz .token
    mov dword ptr [tokens + 4 * esi], edx
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
    call token_put
    mov dword ptr [results + Results.handshake + Handshake.muster], CPUS_NEEDED - 1
    call all_crew
    call release_crew
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
    call release_crew
    mov edi, Cpu.started
    call wait_crew
    jc .return
    call token_put
    call all_crew
    call release_crew
    jmp .collect

    ; A melee: everybody at once, the producer no faster than the first consumer.
.melee:
    call all_crew
    call release_crew
    mov edi, Cpu.started
    call wait_crew
    jc .return
    call token_put

.collect:
    mov edi, Cpu.ack
    call wait_crew
    jmp .return
.return:
    ret

; Is a value that is not the cell's token one that was put earlier? in: EAX value; out: CF set if so
; clobbers: EAX, EDX
{# the round of a token is the token times the inverse of the step, modulo 2^32 #}
is_earlier_token:
    mov edx, dword ptr [results + Results.handshake + Handshake.task + Task.token_mask]
    not edx
    test eax, edx
    jnz .no
    not edx
    imul eax, eax, TOKEN_INVERSE
    and eax, edx
    ; after 2^width rounds every value has been a token
    cmp dword ptr [ebx + Phase.rounds + 4], 0
    jne .yes
    cmp dword ptr [ebx + Phase.rounds], edx
    ja .yes
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

; Accounts for every token of the batch: each must be in exactly one place.
; in: EBX phase; out: CF set if a cell did not keep what the producer alone stored there
; clobbers: EAX, ECX, EDX, ESI, EDI
token_judge:
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
{{ witness("TORN", "dword ptr [tokens + 4 * esi]", "ebp", 0) }}
    jmp .takes
.old_stale:
{{ witness("STALE", "dword ptr [tokens + 4 * esi]", "ebp", 0) }}
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
{{ witness("DUPLICATE", "dword ptr [tokens + 4 * esi]", "eax", "edx", "ecx") }}
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
{{ witness("TORN", "dword ptr [tokens + 4 * esi]", "eax", "ecx") }}
    jmp .counted
.again:
{{ witness("DUPLICATE", "dword ptr [tokens + 4 * esi]", "eax", "ecx") }}
.counted:
    pop ecx
    jmp .consumer
.rest:
    ; what the cell holds now that all are parked
    call dword ptr [results + Results.handshake + Handshake.task + Task.load]
    mov ebp, eax
    test ebp, ebp
    jnz .full
    cmp {{ takers }}, 0
    jne .next
    ; no CPU has it and it is not here. First see that the cell keeps what is stored in it
    mov byte ptr [missing + esi], 1
    mov {{ any_missing }}, 1
    mov eax, dword ptr [tokens + 4 * esi]
    not eax
    call dword ptr [results + Results.handshake + Handshake.task + Task.store]
    jmp .next
.full:
    xor eax, eax
    call dword ptr [results + Results.handshake + Handshake.task + Task.store]
    cmp {{ takers }}, 0
    jne .resurrected
{{ count64("Phase.left") }}
    ; a consumer that took another value has left the token in the cell: that is no violation of its own
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
{{ witness("TORN", "dword ptr [tokens + 4 * esi]", "ebp", "edx") }}
    jmp .next
.still_there:
{{ witness("STALE", "dword ptr [tokens + 4 * esi]", "ebp", "edx") }}
.next:
    add edi, dword ptr [results + Results.handshake + Handshake.task + Task.stride]
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
    call dword ptr [results + Results.handshake + Handshake.task + Task.load]
    mov ecx, eax
    xor eax, eax
    call dword ptr [results + Results.handshake + Handshake.task + Task.store]
    mov eax, dword ptr [tokens + 4 * esi]
    not eax
    and eax, dword ptr [results + Results.handshake + Handshake.task + Task.cell_mask]
    cmp eax, ecx
    jne .unstable
{{ witness("LOST", "dword ptr [tokens + 4 * esi]", 0, 0) }}
.found:
    add edi, dword ptr [results + Results.handshake + Handshake.task + Task.stride]
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
