; The summary: what a run came to, for the screen alone; it stays when the run is over.

; in: EAX the kernel's state; clobbers: everything
screen_finish:
    cmp dword ptr [results + Results.screen], Screen.NONE
    je .return
    push eax
    call screen_clear
    mov byte ptr [screen_only], 1
    cmp byte ptr [screen_live], 0
    jne .live
    ; it was not drawn on in the last phase; at the end it may be possible
    imul ebp, dword ptr [results + Results.phase_index], Plan.SIZE
    add ebp, plan
    mov edi, dword ptr [results + Results.handshake + Handshake.address]
    mov eax, 1
    call screen_claim
.live:
    push dword ptr [results + Results.cpus_found]
    push text_case
    push text_version
    push summary_title
    call say
    add esp, 16
    call summary_phases
    pop eax
    mov eax, dword ptr [summary_states + 4 * eax]
    mov esi, eax
    call put_text
    call put_newline
    call summary_details
    call screen_show
    ; what comes now is the log's alone
    mov byte ptr [screen_only], 0
    mov byte ptr [screen_live], 0
.return:
    ret

; Prints a line that counts into nothing. On the stack: the format, then its arguments. clobbers: EAX, ECX, EDX
say:
    push esi
    push edi
    mov esi, dword ptr [esp + 12]
    lea edi, [esp + 16]
    call put_format
    call put_newline
    pop edi
    pop esi
    ret

; The same without ending the line. clobbers: EAX, ECX, EDX
say_more:
    push esi
    push edi
    mov esi, dword ptr [esp + 12]
    lea edi, [esp + 16]
    call put_format
    pop edi
    pop esi
    ret

; Exceptions, missing CPUs. in: Results; clobbers: EAX, EBX, ECX, EDX, EBP, ESI
summary_details:
    mov ecx, dword ptr [results + Results.cpus_found]
    cmp ecx, CPUS_NEEDED
    jae .faults
    push CPUS_NEEDED
    push ecx
    push summary_few
    call say
    add esp, 12
.faults:
    ; the first CPU's fault is enough
    xor ebp, ebp
    mov ebx, results + Results.cpu
.cpu:
    lea esi, [ebx + Cpu.fault]
    cmp dword ptr [esi + Fault.vector_plus_1], 0
    jne summary_fault
    add ebx, Cpu.SIZE
    inc ebp
    cmp ebp, CPU_TABLE
    jb .cpu
{% if not suite %}
    ; a phase's own
    xor ecx, ecx
    mov ebx, results + Results.phase
.phase:
    lea esi, [ebx + Phase.fault]
    mov ebp, dword ptr [ebx + Phase.fault_cpu]
    cmp dword ptr [esi + Fault.vector_plus_1], 0
    jne summary_fault
    add ebx, Phase.SIZE
    inc ecx
    cmp ecx, PHASES
    jb .phase
{% endif %}
    jmp summary_code

; in: ESI the Fault, EBP the CPU
summary_fault:
    push dword ptr [esi + Fault.error]
    push dword ptr [esi + Fault.eip]
    mov eax, dword ptr [esi + Fault.vector_plus_1]
    dec eax
    push eax
    push ebp
    push summary_exception
    call say
    add esp, 20

summary_code:
{% if not suite %}
    push code_text
    push summary_line_code
    call say
    add esp, 4
    push summary_line_judge
    call say
    add esp, 8
{% endif %}
    ret

{% if suite %}
; The cases by what became of them, and those that were violated by name. clobbers: EAX, EBX, ECX, EDX, EBP, ESI, EDI
summary_phases:
    mov edi, summary_count
    call summary_cases
    push dword ptr [summary_skipped]
    push dword ptr [summary_violated]
    push dword ptr [summary_clean]
    push CASES
    push summary_suite
    call say
    add esp, 20
    mov dword ptr [summary_lines], SUMMARY_NAMES
    mov edi, summary_name
    call summary_cases
    ret

; Calls a routine for each case. in: EDI the routine; clobbers: EAX, EBX, ECX, EDX, EBP, ESI
summary_cases:
    mov ebp, plan
    mov ebx, results + Results.phase
.phase:
    cmp dword ptr [ebp + Plan.role], Role.CASE
    jne .next
    call all_violations
    or eax, edx
    call edi
.next:
    add ebp, Plan.SIZE
    add ebx, Phase.SIZE
    cmp ebp, plan + PHASES * Plan.SIZE
    jb .phase
    ret

; in: EBX the case's phase, ZF clear if it has violations; clobbers: EAX
summary_count:
    jnz .violated
    mov eax, dword ptr [ebx + Phase.status]
    cmp eax, PhaseStatus.DONE
    je .clean
    cmp eax, PhaseStatus.LIMIT
    je .clean
    inc dword ptr [summary_skipped]
    ret
.violated:
    inc dword ptr [summary_violated]
    ret
.clean:
    inc dword ptr [summary_clean]
    ret

; in: EBP plan row, ZF clear if it has violations; clobbers: EAX, ECX, EDX
summary_name:
    jz .return
    mov eax, dword ptr [summary_lines]
    test eax, eax
    jz .return
    dec dword ptr [summary_lines]
    mov ecx, summary_line_name
    ; the last line there is, and more than that to say
    cmp eax, 1
    jne .say
    cmp dword ptr [summary_violated], SUMMARY_NAMES
    jbe .say
    mov ecx, summary_line_last
.say:
    mov eax, dword ptr [ebp + Plan.case]
    push dword ptr [case_names + 4 * eax]
    push ecx
    call say
    add esp, 8
.return:
    ret
{% else %}
; Each phase in a line; then the table of the case. clobbers: EAX, EBX, ECX, EDX, EBP, ESI, EDI
summary_phases:
    mov ebp, plan
    mov ebx, results + Results.phase
.phase:
    push dword ptr [ebp + Plan.label]
    push summary_label
    call say_more
    add esp, 8
    ; where batches are judged, their number says more than the operations', and there is room for one of them
    cmp dword ptr [ebp + Plan.prepare], 0
    jne .live
    lea eax, [ebx + Phase.rounds]
    push eax
    push summary_rounds
    call say_more
    add esp, 8
    jmp .status
.live:
    mov eax, dword ptr [ebx + Phase.style + StyleCount.live]
{% for style in range(1, styles) %}
    add eax, dword ptr [ebx + Phase.style + {{ style }} * StyleCount.SIZE + StyleCount.live]
{% endfor %}
    push eax
    push summary_live
    call say_more
    add esp, 8
.status:
    mov eax, dword ptr [ebx + Phase.status]
    push dword ptr [summary_statuses + 4 * eax]
    push summary_status
    call say_more
    add esp, 8
    call all_violations
    or eax, edx
    jnz .kinds
    mov esi, summary_none
    call put_text
.kinds:
{% for kind in ("lost", "duplicate", "torn", "stale") %}
    lea eax, [ebx + Phase.{{ kind }}]
    mov ecx, dword ptr [eax]
    or ecx, dword ptr [eax + 4]
    jz .no_{{ kind }}
    push eax
    push summary_{{ kind }}
    call say_more
    add esp, 8
.no_{{ kind }}:
{% endfor %}
    call put_newline
    add ebp, Plan.SIZE
    add ebx, Phase.SIZE
    cmp ebp, plan + PHASES * Plan.SIZE
    jb .phase
{% if tabled %}
    cmp dword ptr [ebx - Phase.SIZE + Phase.status], PhaseStatus.PENDING
    je .return
    mov esi, text_table_header
    call put_text
    call put_newline
    jmp put_table_row
.return:
{% endif %}
    ret
{% endif %}

.section .rodata, "a", 64
.align 4
summary_states:
{% for name in states %}
    .long summary_state_{{ loop.index0 }}
{% endfor %}
summary_statuses:
{% for name in statuses %}
    .long summary_status_{{ loop.index0 }}
{% endfor %}
{% for name in states %}
summary_state_{{ loop.index0 }}:
    .asciz {{ name | quoted }}
{% endfor %}
{% for name in statuses %}
summary_status_{{ loop.index0 }}:
    .asciz {{ name | quoted }}
{% endfor %}
summary_title:
    .asciz "kgen %s  %s  %u CPUs"
summary_few:
    .asciz "%u CPUs started, %u are needed"
summary_exception:
    .asciz "CPU %u raised exception %u at %x, error code %x"
{% if suite %}
summary_suite:
    .asciz "%u cases: %u clean, %u violated, %u skipped"
summary_line_name:
    .asciz "violated: %s"
summary_line_last:
    .asciz "violated: %s, and others"
{% else %}
summary_label:
    .asciz "%s:"
summary_rounds:
    .asciz " %q rounds,"
summary_live:
    .asciz " %u live,"
summary_status:
    .asciz " %s,"
summary_none:
    .asciz " no violation"
{% for kind in ("lost", "duplicate", "torn", "stale") %}
summary_{{ kind }}:
    .asciz " %q {{ kind }}"
{% endfor %}
summary_line_code:
    .asciz "code: %s"
summary_line_judge:
    .asciz "kgen judge --code %s"
{% endif %}
.section .text, "ax"
.code32
