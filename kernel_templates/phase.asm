; Phases: from the announcement to the result, and what lies between. All of this runs on the BSP.

; Phases that take turns, batch by batch, so that all see the same host: those of a group, which is one phase or more.
; in: EAX index of the first; out: EAX how many they are; clobbers: ECX, EDX, ESI, EDI, EBP
run_group:
    push ebx
    mov dword ptr [group_first], eax
    imul ebp, eax, Plan.SIZE
    mov ecx, dword ptr [plan + ebp + Plan.turns]
    add ecx, eax
    mov dword ptr [group_end], ecx
.open:
    call open_phase
    mov eax, dword ptr [results + Results.phase_index]
    inc eax
    cmp eax, dword ptr [group_end]
    jb .open
    call restart_row_deadline
    call restart_beat
    call limit_group
.round:
    mov eax, dword ptr [group_first]
    mov dword ptr [group_running], 0
.turn:
    call take_turn
    cmp dword ptr [results + Results.stop], 0
    jne .stopped
    cmp dword ptr [ebx + Phase.status], PhaseStatus.RUNNING
    jne .next
    inc dword ptr [group_running]
.next:
    mov eax, dword ptr [results + Results.phase_index]
    inc eax
    cmp eax, dword ptr [group_end]
    jb .turn
    cmp dword ptr [group_running], 0
    je .done
    cmp dword ptr [ebp + Plan.turns_to_proof], 0
    je .limited
    ; the last one is what the others are for
    cmp dword ptr [ebx + Phase.status], PhaseStatus.RUNNING
    jne .done
    call proof_reached
    jnc .done
.limited:
    call limit_reached
    jc .round
    mov esi, PhaseStatus.LIMIT
    jmp .close
.done:
    mov esi, PhaseStatus.DONE
    jmp .close
.stopped:
    mov esi, PhaseStatus.STOPPED
.close:
    mov eax, dword ptr [group_first]
.end:
    mov dword ptr [results + Results.phase_index], eax
    imul ebp, eax, Plan.SIZE
    add ebp, plan
    imul ebx, eax, Phase.SIZE
    add ebx, results + Results.phase
    cmp dword ptr [ebx + Phase.status], PhaseStatus.RUNNING
    jne .ended
    mov dword ptr [ebx + Phase.status], esi
.ended:
    push esi
    call show_phase
    cmp dword ptr [ebp + Plan.announce], 0
    je .no_row
    cmp dword ptr [row_pending], 0
    je .no_row
    call put_table_row
.no_row:
    call report_phase
    call end_phase
    pop esi
    mov eax, dword ptr [results + Results.phase_index]
    inc eax
    cmp eax, dword ptr [group_end]
    jb .end
    mov dword ptr [results + Results.cpu + Cpu.state], CpuState.WAITING
    sub eax, dword ptr [group_first]
    pop ebx
    ret

; Makes one phase ready: its target, what it says of itself, its probes. in: EAX index; out: Results.phase_index
; clobbers: EAX, EBX, ECX, EDX, ESI, EDI, EBP
open_phase:
    mov dword ptr [results + Results.phase_index], eax
    imul ebp, eax, Plan.SIZE
    add ebp, plan
    imul ebx, eax, Phase.SIZE
    add ebx, results + Results.phase
    call begin_case
    mov eax, dword ptr [ebp + Plan.role]
    mov dword ptr [ebx + Phase.role], eax
    mov eax, dword ptr [ebp + Plan.cells]
    mov dword ptr [ebx + Phase.cells], eax
    mov dword ptr [ebx + Phase.status], PhaseStatus.RUNNING
    ; batches of tokens are not counted by their style
    cmp dword ptr [ebp + Plan.prepare], 0
    je .tokens
    mov dword ptr [ebx + Phase.styles], {{ styles }}
.tokens:
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
    mov dword ptr [results + Results.handshake + Handshake.repeat], eax
    ; nothing is drawn while targets are made ready
    mov byte ptr [screen_live], 0
    call find_target
    mov dword ptr [ebx + Phase.address], edi
    push eax
    call set_task
    mov eax, dword ptr [esp]
    mov edi, dword ptr [ebx + Phase.address]
    call screen_claim
    push dword ptr [ebp + Plan.rounds]
    push dword ptr [ebp + Plan.cells]
    push dword ptr [ebx + Phase.address]
    push dword ptr [ebp + Plan.label]
    push dword ptr [results + Results.phase_index]
    push format_phase
    call record
    add esp, 24
    pop eax
    test eax, eax
    jz .absent
    call attend
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
    je .return
    call put_table_header
.return:
    ret
.absent:
    mov dword ptr [ebx + Phase.status], PhaseStatus.ABSENT
    ret
.no_storage:
    mov dword ptr [ebx + Phase.status], PhaseStatus.NO_STORAGE
    ret

; Tells all CPUs what a phase does, and where. in: EBX phase, EBP plan row; clobbers: EAX, ECX, ESI, EDI
set_task:
    mov eax, dword ptr [ebp + Plan.cells]
    mov dword ptr [results + Results.handshake + Handshake.cells], eax
    mov eax, dword ptr [ebx + Phase.address]
    mov dword ptr [results + Results.handshake + Handshake.address], eax
    mov eax, dword ptr [ebx + Phase.latency]
    mov dword ptr [results + Results.handshake + Handshake.latency], eax
    lea esi, [ebp + Plan.task]
    mov edi, results + Results.handshake + Handshake.task
    mov ecx, Task.SIZE / 4
    rep movsd
    ret

; Makes a phase the present one: its counters are the CPUs' own while it runs. in: EAX its index; out: EBX phase, EBP plan
; row, Results.phase_index; clobbers: EAX, ECX, EDX, ESI, EDI
show_phase:
    imul ebp, eax, Plan.SIZE
    add ebp, plan
    imul ebx, eax, Phase.SIZE
    add ebx, results + Results.phase
    lea esi, [ebx + Phase.cpu]
    mov edi, results + Results.cpu
    mov edx, CPUS_NEEDED
.cpu:
    mov ecx, Counters.SIZE / 4
    push edi
    rep movsd
    pop edi
    add edi, Cpu.SIZE
    dec edx
    jnz .cpu
    mov dword ptr [results + Results.phase_index], eax
    jmp set_task

; Keeps the present phase's counters. in: EBX phase; clobbers: ECX, EDX, ESI, EDI
keep_counters:
    mov esi, results + Results.cpu
    lea edi, [ebx + Phase.cpu]
    mov edx, CPUS_NEEDED
.cpu:
    mov ecx, Counters.SIZE / 4
    push esi
    rep movsd
    pop esi
    add esi, Cpu.SIZE
    dec edx
    jnz .cpu
    ret

; A few batches of a phase, if it still runs. in: EAX its index; out: EBX phase, EBP plan row
; clobbers: EAX, ECX, EDX, ESI, EDI
take_turn:
    imul ebx, eax, Phase.SIZE
    add ebx, results + Results.phase
    cmp dword ptr [ebx + Phase.status], PhaseStatus.RUNNING
    je .runs
    mov dword ptr [results + Results.phase_index], eax
    imul ebp, eax, Plan.SIZE
    add ebp, plan
    ret
.runs:
    call show_phase
    ; where to come back to when the instruction under test raises an exception on this CPU
    mov dword ptr [phase_esp], esp
    mov dword ptr [phase_ebp], ebp
    mov dword ptr [phase_ebx], ebx
    mov dword ptr [turn_left], TURN
    rdtsc
    mov dword ptr [phase_start], eax
    mov dword ptr [phase_start + 4], edx
.batch:
    call dword ptr [ebp + Plan.batch]
    jc .not_parked
    cmp dword ptr [phase_faults], 0
    jne .faulted
    call dword ptr [ebp + Plan.judge]
    jc .unstable
    call count_events
    jc .unsound
    call maybe_row
    call maybe_progress
    call screen_poll
    call serial_check_stop
    cmp dword ptr [results + Results.stop], 0
    jne .rest
    call enough_violations
    jnc .done
    call enough_rounds
    jnc .done
    call limit_reached
    jnc .rest
    dec dword ptr [turn_left]
    jnz .batch
.rest:
    mov edx, PhaseStatus.RUNNING
    jmp .told
.done:
    mov edx, PhaseStatus.DONE
.told:
    ; the CPUs' task must still be the planned one: cells that are elsewhere would test something else
    mov eax, dword ptr [ebx + Phase.address]
    cmp eax, dword ptr [results + Results.handshake + Handshake.address]
    jne .unsound
    lea esi, [ebp + Plan.task]
    mov edi, results + Results.handshake + Handshake.task
    mov ecx, Task.SIZE / 4
    repe cmpsd
    jne .unsound
    mov eax, edx
    jmp .end
.unstable:
    mov eax, PhaseStatus.UNSTABLE
    jmp .end
.unsound:
    mov eax, PhaseStatus.UNSOUND
    jmp .end
.faulted:
    ; no CPU waits for what will not come
    mov dword ptr [results + Results.handshake + Handshake.filled], 0x7FFFFFFF
    mov dword ptr [results + Results.handshake + Handshake.muster], 0
    mov dword ptr [race_line], 0x3FFFFFFF
    call wait_idle
    jc .not_parked
    call take_fault
    mov eax, PhaseStatus.FAULTED
.end:
    mov dword ptr [ebx + Phase.status], eax
    rdtsc
    sub eax, dword ptr [phase_start]
    sbb edx, dword ptr [phase_start + 4]
    add dword ptr [ebx + Phase.ticks], eax
    adc dword ptr [ebx + Phase.ticks + 4], edx
    jmp keep_counters
.not_parked:
    ; some CPU may still be at work on the cells: nothing more can be said, nothing more may be tried
    mov dword ptr [ebx + Phase.status], PhaseStatus.NOT_PARKED
    call keep_counters
    call report_phase
    mov eax, KernelState.NOT_PARKED
    jmp finish

; The BSP comes here when the instruction under test raised an exception on it.
phase_aborted:
    mov esp, dword ptr [phase_esp]
    mov ebp, dword ptr [phase_ebp]
    mov ebx, dword ptr [phase_ebx]
    jmp take_turn.faulted

; Makes the phase's target ready. in: EBP plan row; out: EAX 0 where the machine has none, EDI the first cell's address
; clobbers: ECX, EDX, ESI
find_target:
    xor edi, edi
    mov eax, dword ptr [ebp + Plan.setup]
    test eax, eax
    jz .placed
    push ebx
    push ebp
    call eax
    pop ebp
    pop ebx
    jc .absent
.placed:
    add edi, dword ptr [ebp + Plan.address]
    mov eax, 1
    ret
.absent:
    xor edi, edi
    xor eax, eax
    ret

; A host that attends may look at the machine before each case: it is waited for, with a bound.
; in: EBP plan row; clobbers: EAX, EDX
attend:
    cmp dword ptr [attended], 0
    je .return
    cmp dword ptr [ebp + Plan.role], Role.CASE
    jne .return
    call screen_show
    push ebx
    push ecx
    mov eax, ATTEND_MS
    mov ebx, wait_deadline
    call set_deadline
.wait:
    mov dx, SERIAL_PORT + 5
    in al, dx
    test al, 1
    jnz .byte
    pause
    call check_deadline
    jc .wait
    jmp .out
.byte:
    mov dx, SERIAL_PORT
    in al, dx
    cmp al, ATTEND_BYTE
    je .out
    cmp al, ATTEND_BRIEF_BYTE
    je .brief
    mov dword ptr [results + Results.stop], 1
    jmp .out
.brief:
    ; the case is over after one turn
    mov dword ptr [case_share], 0
.out:
    pop ecx
    pop ebx
.return:
    ret

; What the first phase of a case begins: its share of the budget. in: EBP plan row; clobbers: EAX, ECX, EDX, ESI, EDI
begin_case:
    mov eax, dword ptr [ebp + Plan.case]
    cmp eax, dword ptr [current_case]
    je .return
    mov dword ptr [current_case], eax
    mov dword ptr [rounds_needed], 0
{% if budget_ms %}
    ; what is left, in milliseconds
    rdtsc
    mov esi, dword ptr [budget_deadline]
    mov edi, dword ptr [budget_deadline + 4]
    sub esi, eax
    sbb edi, edx
    jb .spent
    mov eax, esi
    mov edx, edi
    div dword ptr [results + Results.ticks_per_ms]
    jmp .left
.spent:
    xor eax, eax
.left:
    ; an even share, but a case that is hard to decide may take more
    mov esi, eax
    mov ecx, CASES
    sub ecx, dword ptr [current_case]
    xor edx, edx
    div ecx
    shr esi, GREED_SHIFT
    cmp eax, esi
    jae .most
    ; as much as some others have, and leave them theirs
    imul eax, eax, GREED_SHARES
    cmp eax, esi
    jb .most
    mov eax, esi
.most:
    cmp eax, LEAST_SHARE_MS
    jae .share
    mov eax, LEAST_SHARE_MS
.share:
    mov dword ptr [case_share], eax
{% endif %}
.return:
    ret

; How long the phases that take turns may go on. in: EBP plan row of any of them; clobbers: EAX, ECX, EDX
limit_group:
    mov dword ptr [group_limited], 0
{% if budget_ms %}
    mov eax, dword ptr [case_share]
    cmp dword ptr [ebp + Plan.turns_to_proof], 0
    jne .share
    shr eax, 1
.share:
{% else %}
    mov eax, PROOF_MS
    cmp dword ptr [ebp + Plan.turns_to_proof], 0
    je .return
{% endif %}
    push ebx
    mov ebx, phase_deadline
    call set_deadline
    pop ebx
    inc dword ptr [group_limited]
.return:
    ret

; Have they had their time? out: CF clear if so; clobbers: EAX, EDX
limit_reached:
    cmp dword ptr [group_limited], 1
    jb .return
    push ebx
    mov ebx, phase_deadline
    call check_deadline
    pop ebx
.return:
    ret

; Has it run as many rounds as it must? in: EBX phase, EBP plan row; out: CF clear if so; clobbers: EAX, EDX
enough_rounds:
    cmp dword ptr [ebp + Plan.turns_to_proof], 0
    je .counted
    ; what is to go on until the proof is reached; a sanity control has then done enough that has met as often as the case
    cmp dword ptr [ebp + Plan.role], Role.SANITY
    jne .no
{% for style in range(styles) %}
    cmp dword ptr [ebx + Phase.style + {{ style }} * StyleCount.SIZE + StyleCount.live], LIVE_LEAST
    jb .no
{% endfor %}
    clc
    ret
.counted:
    mov eax, dword ptr [ebp + Plan.rounds]
    cmp dword ptr [ebp + Plan.adaptive], 0
    je .limit
    ; a power control goes on until it has failed, the case as long as its power controls did
    cmp dword ptr [ebp + Plan.role], Role.CASE
    jne .no
    cmp eax, dword ptr [rounds_needed]
    jae .limit
    mov eax, dword ptr [rounds_needed]
.limit:
    test eax, eax
    jz .no
    cmp dword ptr [ebx + Phase.rounds + 4], 0
    jne .yes
    cmp dword ptr [ebx + Phase.rounds], eax
    ret
.yes:
    clc
    ret
.no:
    stc
    ret

; What the end of a phase brings. in: EBX phase, EBP plan row; clobbers: EAX, ECX, EDX, ESI, EDI
end_phase:
    cmp dword ptr [ebp + Plan.role], Role.POWER
    jne .last
    mov eax, 0x7FFFFFFF
    cmp dword ptr [ebx + Phase.rounds + 4], 0
    jne .more
    mov eax, dword ptr [ebx + Phase.rounds]
.more:
    cmp eax, dword ptr [rounds_needed]
    jbe .last
    mov dword ptr [rounds_needed], eax
.last:
    cmp dword ptr [ebp + Plan.last], 0
    je .return
{% if suite %}
    call put_tap_line
    ; the case has ended, whatever happens to those after it
    mov eax, dword ptr [ebp + Plan.case]
    mov edx, KernelState.FINISHED
    call record_code
    push dword ptr [log_crc]
    push dword ptr [ebp + Plan.case]
    push format_done
    call record
    add esp, 12
{% endif %}
    inc dword ptr [results + Results.cases_done]
.return:
    ret

; Takes the first CPU's exception into the phase and clears all. in: EBX phase; clobbers: EAX, ECX, EDX, ESI, EDI
take_fault:
    push ebp
    mov esi, results + Results.cpu
    xor ebp, ebp
    mov dword ptr [phase_faults], 0
.cpu:
    mov ecx, dword ptr [esi + Cpu.fault + Fault.vector_plus_1]
    test ecx, ecx
    jz .next
    mov dword ptr [esi + Cpu.fault + Fault.vector_plus_1], 0
    cmp dword ptr [ebx + Phase.fault + Fault.vector_plus_1], 0
    jne .next
    mov dword ptr [ebx + Phase.fault + Fault.vector_plus_1], ecx
    mov dword ptr [ebx + Phase.fault_cpu], ebp
{% for part in ("error", "eip", "eflags", "cr2") %}
    mov eax, dword ptr [esi + Cpu.fault + Fault.{{ part }}]
    mov dword ptr [ebx + Phase.fault + Fault.{{ part }}], eax
{% endfor %}
.next:
    add esi, Cpu.SIZE
    inc ebp
    cmp ebp, CPUS_NEEDED
    jb .cpu
    push dword ptr [results + Results.phase_index]
    lea esi, [ebx + Phase.fault]
    mov ebp, dword ptr [ebx + Phase.fault_cpu]
    call record_fault
    pop ebp
    ret

; Has a phase shown what decides it? A power control of a walk has once it has failed so often in each style, live.
; in: EBX phase, EBP plan row; out: CF clear if so; clobbers: EAX, EDX
enough_violations:
    mov edx, dword ptr [ebp + Plan.enough]
    test edx, edx
    jz .no
    cmp dword ptr [ebp + Plan.role], Role.POWER
    jne .events
    cmp dword ptr [ebp + Plan.prepare], 0
    je .events
{% for style in range(styles) %}
    cmp dword ptr [ebx + Phase.style + {{ style }} * StyleCount.SIZE + StyleCount.violated], edx
    jb .return
{% endfor %}
    ret
.events:
    cmp dword ptr [ebx + Phase.events + 4], 0
    jne .return
    cmp dword ptr [ebx + Phase.events], edx
.return:
    ret
.no:
    stc
    ret

; Prints the phase's counters and its result. in: EBX phase, EBP plan row; clobbers: EAX, ECX, EDX, ESI, EDI
report_phase:
    push ebp
    xor esi, esi
    lea edi, [ebx + Phase.cpu]
.cpu:
    lea eax, [edi + Counters.tries]
    push eax
    lea eax, [edi + Counters.takes]
    push eax
    lea eax, [edi + Counters.puts]
    push eax
    push esi
    push dword ptr [results + Results.phase_index]
    push format_count
    call record
    add esp, 24
    add edi, Counters.SIZE
    inc esi
    cmp esi, CPUS_NEEDED
    jb .cpu
    cmp dword ptr [ebp + Plan.prepare], 0
    je .result
    xor esi, esi
    lea edi, [ebx + Phase.style]
.style:
{% for field in ("struck", "blind_violated", "blind", "switches", "violated", "live", "batches") %}
    push dword ptr [edi + StyleCount.{{ field }}]
{% endfor %}
    push esi
    push dword ptr [results + Results.phase_index]
    push format_live
    call record
    add esp, 40
    add edi, StyleCount.SIZE
    inc esi
    cmp esi, {{ styles }}
    jb .style
.result:
{% for field in ("ticks", "judged", "events", "foreign", "left", "stale", "torn", "duplicate", "lost", "rounds") %}
    lea eax, [ebx + Phase.{{ field }}]
    push eax
{% endfor %}
    push dword ptr [ebx + Phase.status]
    push dword ptr [results + Results.phase_index]
    push format_result
    call record
    add esp, 52
    pop ebp
    ret

; Counts this batch's chances of an event, and the events. For tokens each cell is a chance, since CPUs meet at each. A
; walk is one: one stale write may cost many updates, and CPUs that have drifted apart stay so to its end.
; in: EBX phase, EBP plan row; out: CF set if a walk's tickets make no sense; clobbers: EAX, ECX, EDX, ESI, EDI
count_events:
    xor ecx, ecx
    xor edx, edx
.cell:
    movzx eax, byte ptr [struck + ecx]
    add edx, eax
    mov byte ptr [struck + ecx], 0
    inc ecx
    cmp ecx, dword ptr [results + Results.handshake + Handshake.cells]
    jb .cell
    cmp dword ptr [ebp + Plan.prepare], 0
    je .add
    mov ecx, 1
    cmp edx, ecx
    jb .add
    mov edx, ecx
.add:
    add dword ptr [ebx + Phase.events], edx
    adc dword ptr [ebx + Phase.events + 4], 0
    add dword ptr [ebx + Phase.judged], ecx
    adc dword ptr [ebx + Phase.judged + 4], 0
    cmp dword ptr [ebp + Plan.prepare], 0
    jne count_live
    ret

; in: EBX phase; out: EDX:EAX
all_violations:
    xor eax, eax
    xor edx, edx
{% for kind in ("lost", "duplicate", "torn", "stale") %}
    add eax, dword ptr [ebx + Phase.{{ kind }}]
    adc edx, dword ptr [ebx + Phase.{{ kind }} + 4]
{% endfor %}
    ret

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

; in: nothing; clobbers: EAX, ECX, EDX
restart_beat:
    push ebx
    mov eax, BEAT_MS
    mov ebx, beat_deadline
    call set_deadline
    pop ebx
    ret

; Where there is no table, a sign of life now and then, of the last of the phases that take turns.
; in: EBX phase, EBP plan row; clobbers: EAX, ECX, EDX
maybe_progress:
    cmp dword ptr [ebp + Plan.announce], 0
    jne .return
    mov eax, dword ptr [results + Results.phase_index]
    inc eax
    cmp eax, dword ptr [group_end]
    jne .return
    push ebx
    mov ebx, beat_deadline
    call check_deadline
    pop ebx
    jc .return
    lea eax, [ebx + Phase.rounds]
    push eax
    push dword ptr [results + Results.phase_index]
    push format_progress
    call record
    add esp, 12
    jmp restart_beat
.return:
    ret
