{% from "macros.asm" import crc_byte %}
; The result code: the result of a case, in one line for people to copy. docs/screen.md describes its layout; code.py makes
; the same text from a record.

; Prints a case's code. in: EAX the case's number, EDX the kernel's state; clobbers: EAX, ECX, EDX
record_code:
    push ebx
    push ebp
    push esi
    push edi
    mov dword ptr [code_case], eax
    mov dword ptr [code_state], edx
    mov dword ptr [code_least], CODE_LEAST_DIGITS
    mov dword ptr [code_digits], CODE_MOST_DIGITS
.again:
    call code_collect
    ; with fewer digits of the counts of live batches where it is too long
    cmp dword ptr [code_length], CODE_SHOWN
    jbe .sum
    mov eax, dword ptr [code_digits]
    cmp eax, dword ptr [code_least]
    jbe .sum
    dec dword ptr [code_digits]
    jmp .again
.sum:
    mov edx, 0xFFFFFFFF
    mov esi, code_symbols
    mov edi, esi
    add edi, dword ptr [code_length]
.byte:
    lodsb
{{ crc_byte() }}
    cmp esi, edi
    jb .byte
    not edx
    ; the checksum follows, whatever the length is
    mov ecx, CODE_CHECK
.check:
    mov eax, edx
    and eax, 31
    mov byte ptr [edi], al
    inc edi
    shr edx, 5
    dec ecx
    jnz .check
    ; characters, in groups
    mov esi, code_symbols
    mov edx, edi
    mov edi, code_text
    mov ecx, CODE_GROUP
.letter:
    movzx eax, byte ptr [esi]
    mov al, byte ptr [code_alphabet + eax]
    stosb
    inc esi
    cmp esi, edx
    jae .end
    dec ecx
    jnz .letter
    mov al, '-'
    stosb
    mov ecx, CODE_GROUP
    jmp .letter
.end:
    mov byte ptr [edi], 0
    push code_text
    push format_code
    call record
    add esp, 8
    pop edi
    pop esi
    pop ebp
    pop ebx
    ret

; Collects the symbols, all but the checksum's. in: code_case, code_state, code_digits
; clobbers: EAX, EBX, ECX, EDX, EBP, ESI, EDI
code_collect:
    mov dword ptr [code_length], 0
    mov eax, dword ptr [code_case]
    push dword ptr [code_phases + 4 * eax]
    mov esi, dword ptr [code_headings + 4 * eax]
.heading:
    lodsb
    cmp al, NO_SYMBOL
    je .state
    call code_symbol
    jmp .heading
.state:
    mov eax, dword ptr [code_digits]
    imul eax, eax, CODE_STATES
    add eax, dword ptr [code_state]
    call code_symbol
    mov eax, dword ptr [code_state]
    cmp eax, KernelState.TOO_FEW_CPUS
    je .found
    cmp eax, KernelState.FAULTED
    jne .phases
    ; the first CPU's exception
    xor edx, edx
    mov ebx, results + Results.cpu
.cpu:
    lea esi, [ebx + Cpu.fault]
    cmp dword ptr [esi + Fault.vector_plus_1], 0
    jne .fault
    add ebx, Cpu.SIZE
    inc edx
    cmp edx, CPU_TABLE
    jb .cpu
    jmp .phases
.fault:
    call code_fault
    jmp .phases
.found:
    mov eax, dword ptr [results + Results.cpus_found]
    xor edx, edx
    call code_number
.phases:
    pop esi
.phase:
    lodsd
    cmp eax, NO_PHASE
    je .end
    imul ebp, eax, Plan.SIZE
    add ebp, plan
    imul ebx, eax, Phase.SIZE
    add ebx, results + Results.phase
    push esi
    call code_phase
    pop esi
    jmp .phase
.end:
    ret

; Adds a symbol. in: AL; clobbers: nothing
code_symbol:
    push ecx
    mov ecx, dword ptr [code_length]
    cmp ecx, CODE_MOST
    jae .full
    mov byte ptr [code_symbols + ecx], al
    inc dword ptr [code_length]
.full:
    pop ecx
    ret

; Adds a number of 64 bits, four bits a symbol, the lowest ones first; 16 says that more follow.
; in: ECX where it is; clobbers: EAX, ECX, EDX
code_quad:
    mov eax, dword ptr [ecx]
    mov edx, dword ptr [ecx + 4]

; in: EDX:EAX; clobbers: EAX, ECX, EDX
code_number:
    mov ecx, eax
.next:
    mov eax, ecx
    and eax, 15
    shrd ecx, edx, 4
    shr edx, 4
    push edx
    or edx, ecx
    pop edx
    jz code_symbol
    or eax, 16
    call code_symbol
    jmp .next

; Adds an exception. in: ESI the Fault, EDX the CPU; clobbers: EAX, ECX, EDX
code_fault:
    mov eax, dword ptr [esi + Fault.vector_plus_1]
    dec eax
    call code_symbol
    mov eax, edx
    xor edx, edx
    call code_number
    mov eax, dword ptr [esi + Fault.eip]
    xor edx, edx
    call code_number
    mov eax, dword ptr [esi + Fault.error]
    xor edx, edx
    jmp code_number

; Adds how many bits a number of 64 bits has, 31 for 31 and more. in: ECX where it is; clobbers: EAX
code_order:
    mov eax, CODE_HIGHEST
    cmp dword ptr [ecx + 4], 0
    jne code_symbol
    bsr eax, dword ptr [ecx]
    jnz .some
    mov eax, -1
.some:
    inc eax
    cmp eax, CODE_HIGHEST
    jbe code_symbol
    mov eax, CODE_HIGHEST
    jmp code_symbol

; Adds a number of at most code_digits digits, or so many digits below a leading 1 and then how many bits are missing.
; in: EAX the number, EDX 1 to round it up, 0 to round it down; clobbers: EAX, ECX, EDX
code_short:
    push ebx
    push esi
    mov ecx, dword ptr [code_digits]
    shl ecx, 2
    mov ebx, 1
    shl ebx, cl
    cmp eax, ebx
    jb .exact
    xor esi, esi
.halve:
    lea ecx, [2 * ebx]
    cmp eax, ecx
    jb .digits
    add eax, edx
    shr eax, 1
    inc esi
    jmp .halve
.digits:
    mov edx, eax
    mov ecx, dword ptr [code_digits]
.digit:
    mov eax, edx
    and eax, 15
    or eax, 16
    call code_symbol
    shr edx, 4
    dec ecx
    jnz .digit
    mov eax, esi
    call code_symbol
    pop esi
    pop ebx
    ret
.exact:
    pop esi
    pop ebx
    xor edx, edx
    jmp code_number

; Adds a phase. in: EBX phase, EBP plan row; clobbers: EAX, ECX, EDX, ESI, EDI
code_phase:
    mov ecx, dword ptr [ebx + Phase.status]
    imul eax, ecx, CODE_DECODES
    cmp ecx, PhaseStatus.RUNNING
    jbe code_symbol
    ; one symbol holds no more
    cmp ecx, PhaseStatus.UNSOUND
    je .probed
    add eax, dword ptr [ebx + Phase.decode]
.probed:
    call code_symbol
    cmp ecx, PhaseStatus.NO_STORAGE
    je .return
    cmp ecx, PhaseStatus.ABSENT
    je .return
    ; which kinds of violations there are
    xor edi, edi
    xor ecx, ecx
.kind:
    mov edx, dword ptr [ebx + 8 * ecx + Phase.lost]
    or edx, dword ptr [ebx + 8 * ecx + Phase.lost + 4]
    jz .none
    bts edi, ecx
.none:
    inc ecx
    cmp ecx, {{ kinds }}
    jb .kind
    ; live batches count for nothing where a violation decides
    mov ecx, dword ptr [ebp + Plan.role]
    test edi, edi
    jz .numbers
    cmp ecx, Role.CASE
    je .decided
    cmp ecx, Role.PROOF
    jne .numbers
.decided:
    mov dword ptr [code_least], 0
.numbers:
    cmp dword ptr [ebp + Plan.prepare], 0
    je .tokens
    ; of the case, and of its proof where that failed, the numbers are exact, of all others their orders are kept
    cmp ecx, Role.CASE
    je .exact
    cmp ecx, Role.PROOF
    jne .rough
    test edi, edi
    jz .rough
.exact:
    mov eax, edi
    call code_symbol
    lea ecx, [ebx + Phase.rounds]
    call code_quad
    test edi, edi
    jz .counted
    lea ecx, [ebx + Phase.judged]
    call code_quad
    jmp .events
.rough:
    mov eax, edi
    mov edx, dword ptr [ebp + Plan.rounds]
    test edx, edx
    jz .roughly
    cmp dword ptr [ebx + Phase.rounds + 4], 0
    jne .enough
    cmp dword ptr [ebx + Phase.rounds], edx
    jb .roughly
.enough:
    or eax, CODE_AS_PLANNED
    call code_symbol
    jmp .orders
.roughly:
    call code_symbol
    lea ecx, [ebx + Phase.rounds]
    call code_order
.orders:
    cmp dword ptr [code_digits], CODE_BARE
    je .counted
    xor esi, esi
.order:
    bt edi, esi
    jnc .without
    lea ecx, [ebx + 8 * esi + Phase.lost]
    call code_order
.without:
    inc esi
    cmp esi, {{ kinds }}
    jb .order
    jmp .counted
.tokens:
    mov eax, edi
    mov edx, dword ptr [ebx + Phase.rounds]
    xor edx, dword ptr [ebp + Plan.rounds]
    or edx, dword ptr [ebx + Phase.rounds + 4]
    jnz .other
    or eax, CODE_AS_PLANNED
    call code_symbol
    jmp .events
.other:
    call code_symbol
    lea ecx, [ebx + Phase.rounds]
    call code_quad
.events:
    test edi, edi
    jz .counted
    lea ecx, [ebx + Phase.events]
    call code_quad
    xor esi, esi
.count:
    bt edi, esi
    jnc .not
    lea ecx, [ebx + 8 * esi + Phase.lost]
    call code_quad
.not:
    inc esi
    cmp esi, {{ kinds }}
    jb .count
.counted:
    cmp dword ptr [ebx + Phase.status], PhaseStatus.FAULTED
    jne .fine
    lea esi, [ebx + Phase.fault]
    mov edx, dword ptr [ebx + Phase.fault_cpu]
    call code_fault
.fine:
    cmp dword ptr [ebp + Plan.prepare], 0
    je .counters
    cmp dword ptr [code_digits], 0
    je .counters
    call code_styles
.counters:
    cmp dword ptr [ebp + Plan.role], Role.CASE
    je code_counters
    cmp dword ptr [ebp + Plan.role], Role.PROOF
    je code_counters
.return:
    ret

; Adds a walk's counts of live batches: a control's so that it never looks stronger, those of what it is for rounded down,
; and only where nothing was violated. in: EBX phase, EBP plan row, EDI the kinds of its violations
; clobbers: EAX, ECX, EDX, ESI
code_styles:
    lea esi, [ebx + Phase.style]
.style:
    mov eax, dword ptr [ebp + Plan.role]
    cmp eax, Role.SANITY
    je .return
    cmp eax, Role.POWER
    je .power
    test edi, edi
    jnz .return
    mov eax, dword ptr [esi + StyleCount.live]
    xor edx, edx
    call code_short
    jmp .next
.power:
    mov eax, dword ptr [esi + StyleCount.violated]
    xor edx, edx
    call code_number
    ; what was never violated counts only where there was enough of it
    xor edx, edx
    cmp dword ptr [esi + StyleCount.violated], 1
    cmc
    adc edx, 0
    mov eax, dword ptr [esi + StyleCount.live]
    sub eax, dword ptr [esi + StyleCount.violated]
    call code_short
    cmp dword ptr [esi + StyleCount.violated], 0
    je .next
    mov eax, dword ptr [esi + StyleCount.switches]
    xor edx, edx
    call code_short
.next:
    add esi, StyleCount.SIZE
    lea eax, [ebx + Phase.style + {{ styles }} * StyleCount.SIZE]
    cmp esi, eax
    jb .style
.return:
    ret

; Adds the counters of the case, or of what stands for it; the sum of a walk's is not part of the code.
; in: EBX phase, EBP plan row; clobbers: EAX, ECX, EDX, ESI, EDI
code_counters:
    ; the first CPU that never tried
    mov dword ptr [code_idle], NO_CPU
    xor ecx, ecx
    lea edi, [ebx + Phase.cpu]
.cpu:
    lea esi, [edi + Counters.puts]
    test ecx, ecx
    jz .did
    cmp dword ptr [ebp + Plan.prepare], 0
    jne .did
    lea esi, [edi + Counters.tries]
.did:
    mov eax, dword ptr [esi]
    or eax, dword ptr [esi + 4]
    jz .idle
    add edi, Counters.SIZE
    inc ecx
    cmp ecx, CPUS_NEEDED
    jb .cpu
    jmp .all
.idle:
    mov dword ptr [code_idle], ecx
.all:
    ; what all consumers but the first took
    xor eax, eax
    xor edx, edx
    lea edi, [ebx + Phase.cpu + 2 * Counters.SIZE]
    mov ecx, CPUS_NEEDED - 2
.rest:
    add eax, dword ptr [edi + Counters.takes]
    adc edx, dword ptr [edi + Counters.takes + 4]
    add edi, Counters.SIZE
    dec ecx
    jnz .rest
    mov dword ptr [code_rest], eax
    mov dword ptr [code_rest + 4], edx
    ; which numbers follow
    xor edi, edi
    cmp dword ptr [code_idle], NO_CPU
    je .puts
    or edi, CODE_IDLE
.puts:
    cmp dword ptr [ebp + Plan.prepare], 0
    jne .foreign
    mov ecx, dword ptr [ebx + Phase.cpu + Counters.puts]
    xor ecx, dword ptr [ebx + Phase.rounds]
    mov esi, dword ptr [ebx + Phase.cpu + Counters.puts + 4]
    xor esi, dword ptr [ebx + Phase.rounds + 4]
    or ecx, esi
    jz .takes
    or edi, CODE_PUTS
.takes:
    add eax, dword ptr [ebx + Phase.cpu + Counters.SIZE + Counters.takes]
    adc edx, dword ptr [ebx + Phase.cpu + Counters.SIZE + Counters.takes + 4]
    xor eax, dword ptr [ebx + Phase.cpu + Counters.puts]
    xor edx, dword ptr [ebx + Phase.cpu + Counters.puts + 4]
    or eax, edx
    jz .foreign
    or edi, CODE_REST
{% for field in ("foreign", "left") %}
.{{ field }}:
    mov eax, dword ptr [ebx + Phase.{{ field }}]
    or eax, dword ptr [ebx + Phase.{{ field }} + 4]
    jz .{{ ("left", "flags")[loop.index0] }}
    or edi, CODE_{{ field | upper }}
{% endfor %}
.flags:
    mov eax, edi
    call code_symbol
    test edi, CODE_IDLE
    jz .first
    mov eax, dword ptr [code_idle]
    xor edx, edx
    call code_number
.first:
{% for flag, place in (
    ("CODE_PUTS", "ebx + Phase.cpu + Counters.puts"),
    ("", "ebx + Phase.cpu + Counters.SIZE + Counters.takes"),
    ("CODE_REST", "code_rest"),
    ("CODE_FOREIGN", "ebx + Phase.foreign"),
    ("CODE_LEFT", "ebx + Phase.left"),
) %}
{% if flag %}
    test edi, {{ flag }}
    jz .without{{ loop.index }}
{% else %}
    cmp dword ptr [ebp + Plan.prepare], 0
    jne .without{{ loop.index }}
{% endif %}
    lea ecx, [{{ place }}]
    call code_quad
.without{{ loop.index }}:
{% endfor %}
    ret
