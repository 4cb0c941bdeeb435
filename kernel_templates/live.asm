; Live batches: whether operations met in a batch, and when there are enough of them. live.py has the same rule.

; Counts a batch of a walk. in: EBX phase, EDX 1 if it was violated, otherwise 0; out: CF set if its tickets make no sense
; clobbers: EAX, ECX, EDX, ESI, EDI
count_live:
    imul edi, dword ptr [results + Results.handshake + Handshake.style], StyleCount.SIZE
    lea edi, [ebx + edi + Phase.style]
    cmp dword ptr [results + Results.handshake + Handshake.tickets], 0
    jne .tickets
    inc dword ptr [edi + StyleCount.blind]
    add dword ptr [edi + StyleCount.blind_violated], edx
    clc
    ret
.tickets:
    inc dword ptr [edi + StyleCount.batches]
    add dword ptr [edi + StyleCount.struck], edx
    push edx
    push edi
    call find_meeting
    pop edi
    pop edx
    jc .return
    test eax, eax
    jz .good
    ; what is known well enough is counted no further: so the numbers stay small enough for the rule
    cmp dword ptr [edi + StyleCount.violated], STRUCK_MOST
    jae .good
    cmp dword ptr [edi + StyleCount.live], LIVE_MOST
    jae .good
    add dword ptr [edi + StyleCount.violated], edx
    cmp dword ptr [edi + StyleCount.live], 0
    je .first
    cmp edx, dword ptr [edi + StyleCount.last]
    je .first
    inc dword ptr [edi + StyleCount.switches]
.first:
    mov dword ptr [edi + StyleCount.last], edx
    inc dword ptr [edi + StyleCount.live]
.good:
    clc
.return:
    ret

; Did two operations of different CPUs on one cell overlap, both so short that neither CPU was descheduled in it, and one
; of them such that a split would show? in: all CPUs parked; out: EAX 1 if so, or 0; CF set if a ticket was drawn twice
; or not at all; clobbers: ECX, EDX, ESI, EDI
find_meeting:
    push ebx
    push ebp
    mov ebp, dword ptr [sequence]
    cmp ebp, TICKETS
    ja .wrong
    mov ecx, ebp
    mov edi, ticket_slots
    xor eax, eax
    rep stosd
    ; which operation each ticket belongs to; the second one of an operation is marked
    mov ebx, results + Results.cpu
    xor ecx, ecx
.cpu:
    mov eax, dword ptr [results + Results.handshake + Handshake.batch]
    cmp eax, dword ptr [ebx + Cpu.walks]
    jne .next_cpu
    call log_of
    mov esi, eax
.operation:
    cmp esi, dword ptr [ebx + Cpu.operation]
    jae .next_cpu
    mov eax, dword ptr [esi + Operation.begin]
    cmp eax, ebp
    jae .wrong
    cmp dword ptr [ticket_slots + 4 * eax], 0
    jne .wrong
    mov dword ptr [ticket_slots + 4 * eax], esi
    mov eax, dword ptr [esi + Operation.end]
    cmp eax, ebp
    jae .wrong
    cmp dword ptr [ticket_slots + 4 * eax], 0
    jne .wrong
    lea edx, [esi + 1]
    mov dword ptr [ticket_slots + 4 * eax], edx
    add ecx, 2
    add esi, Operation.SIZE
    jmp .operation
.next_cpu:
    add ebx, Cpu.SIZE
    cmp ebx, results + Results.cpu + CPUS_NEEDED * Cpu.SIZE
    jb .cpu
    cmp ecx, ebp
    jne .wrong
    ; the widest bracket of a CPU that runs on while each other one does two operations
    mov ebp, dword ptr [results + Results.handshake + Handshake.walkers]
    lea ebp, [4 * ebp - 3]
    lea edi, [ticket_slots + 4 * ecx]
    mov ecx, ticket_slots
.ticket:
    cmp ecx, edi
    jae .none
    mov esi, dword ptr [ecx]
    add ecx, 4
    test esi, 1
    jnz .ticket
    mov edx, dword ptr [esi + Operation.end]
    sub edx, dword ptr [esi + Operation.begin]
    cmp edx, ebp
    ja .ticket
    ; the operations that begin before this one ends are other CPUs'
    lea edx, [ecx + 4 * edx - 4]
    mov ebx, ecx
.other:
    cmp ebx, edx
    jae .ticket
    mov eax, dword ptr [ebx]
    add ebx, 4
    test eax, 1
    jnz .other
    push edx
    mov edx, dword ptr [eax + Operation.end]
    sub edx, dword ptr [eax + Operation.begin]
    cmp edx, ebp
    ja .not
    mov edx, dword ptr [eax + Operation.cell]
    cmp edx, dword ptr [esi + Operation.cell]
    jne .not
    mov edx, dword ptr [eax + Operation.shows]
    or edx, dword ptr [esi + Operation.shows]
    jnz .met
.not:
    pop edx
    jmp .other
.met:
    pop edx
    mov eax, 1
    jmp .out
.none:
    xor eax, eax
.out:
    pop ebp
    pop ebx
    clc
    ret
.wrong:
    pop ebp
    pop ebx
    stc
    ret

; Is the proof of the phases that take turns reached? The last of them is the case or what stands for it.
; out: CF clear if so; clobbers: EAX, ECX, EDX, ESI, EDI
proof_reached:
    push ebx
    push ebp
    xor ebp, ebp
.style:
    ; by each power control, in each style
    mov edx, dword ptr [group_end]
    dec edx
    imul edx, edx, Phase.SIZE
    mov edx, dword ptr [results + Results.phase + edx + ebp + Phase.style + StyleCount.live]
    mov dword ptr [case_live], edx
    cmp edx, LIVE_LEAST
    jb .no
    mov esi, dword ptr [group_first]
    xor edi, edi
.phase:
    imul eax, esi, Plan.SIZE
    cmp dword ptr [plan + eax + Plan.role], Role.POWER
    jne .next
    inc edi
    imul ebx, esi, Phase.SIZE
    lea ebx, [results + Results.phase + ebx]
    cmp dword ptr [plan + eax + Plan.may_be_silent], 0
    je .weigh
    call is_silent
    jnc .next
.weigh:
    lea ecx, [ebx + ebp + Phase.style]
    call live_needed
    jc .no
    cmp eax, dword ptr [case_live]
    ja .no
.next:
    inc esi
    cmp esi, dword ptr [group_end]
    jb .phase
    ; without controls there is none
    test edi, edi
    jz .no
    add ebp, StyleCount.SIZE
    cmp ebp, {{ styles }} * StyleCount.SIZE
    jb .style
    clc
    jmp .out
.no:
    stc
.out:
    pop ebp
    pop ebx
    ret

; Has a control of one instruction never failed in as many live batches as a proof needs, while the pair of instructions
; before it has? in: EBX its phase; out: CF clear if so; clobbers: EAX, ECX
is_silent:
    xor ecx, ecx
    xor eax, eax
.style:
    cmp dword ptr [ebx + ecx + Phase.style + StyleCount.live], LIVE_LEAST
    jb .no
    mov edx, dword ptr [ebx + ecx + Phase.style + StyleCount.struck]
    or edx, dword ptr [ebx + ecx + Phase.style + StyleCount.blind_violated]
    jnz .no
    add eax, dword ptr [ebx + ecx - Phase.SIZE + Phase.style + StyleCount.violated]
    add ecx, StyleCount.SIZE
    cmp ecx, {{ styles }} * StyleCount.SIZE
    jb .style
    cmp eax, PAIR_LEAST
    ret
.no:
    stc
    ret

; How many live batches does a control ask for? in: ECX its StyleCount; out: EAX, CF set if it says nothing
; clobbers: ECX, EDX
live_needed:
    push ebx
    push esi
    push edi
    mov ebx, dword ptr [ecx + StyleCount.violated]
    ; EDI = violated - isqrt(3 * violated) - 1
    lea eax, [ebx + 2 * ebx]
    xor edi, edi
.root:
    lea edx, [edi + 1]
    imul edx, edx
    cmp edx, eax
    ja .rooted
    inc edi
    jmp .root
.rooted:
    sub edi, ebx
    not edi
    ; that is violated - root - 1
    cmp edi, 0
    jle .nothing
    ; 16 times the design effect: 64 * violated * (live - violated) / (switches * live), rounded up, less 16, at least 16
    mov eax, dword ptr [ecx + StyleCount.switches]
    cmp eax, 1
    jae .switches
    mov eax, 1
.switches:
    imul eax, dword ptr [ecx + StyleCount.live]
    mov esi, eax
    mov eax, dword ptr [ecx + StyleCount.live]
    sub eax, ebx
    shl ebx, 6
    mul ebx
    div esi
    cmp edx, 1
    sbb eax, -1
    cmp eax, 32
    jae .effect
    mov eax, 32
.effect:
    sub eax, 16
    ; twice NEEDED times the effect, since a control's rate counts up to a half
    imul eax, eax, POWER_NEEDED
    mov esi, eax
    lea eax, [eax + 7]
    shr eax, 3
    cmp eax, LIVE_LEAST
    jae .half
    mov eax, LIVE_LEAST
.half:
    mov ebx, eax
    ; by the rate: NEEDED * effect * live / (16 * expected), rounded up
    mov eax, esi
    mul dword ptr [ecx + StyleCount.live]
    shl edi, 4
    cmp edx, edi
    jae .nothing
    div edi
    cmp edx, 1
    sbb eax, -1
    cmp eax, ebx
    jae .most
    mov eax, ebx
.most:
    pop edi
    pop esi
    pop ebx
    clc
    ret
.nothing:
    pop edi
    pop esi
    pop ebx
    stc
    ret
