{% from "macros.asm" import crc_byte %}
; The result code: what a case came to, in one line for people to copy. Its layout is told in docs/screen.md; code.py makes
; the same text from a record.

; Prints a case's code. in: EAX the case's number, EDX the kernel's state; clobbers: EAX, ECX, EDX
record_code:
    push ebx
    push ebp
    push esi
    push edi
    mov dword ptr [code_length], 0
    push dword ptr [code_phases + 4 * eax]
    mov esi, dword ptr [code_headings + 4 * eax]
.heading:
    lodsb
    cmp al, NO_SYMBOL
    je .state
    call code_symbol
    jmp .heading
.state:
    mov eax, edx
    call code_symbol
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
    je .sum
    imul ebp, eax, Plan.SIZE
    add ebp, plan
    imul ebx, eax, Phase.SIZE
    add ebx, results + Results.phase
    push esi
    call code_phase
    pop esi
    jmp .phase
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
    ; the checksum goes behind, whatever the length is
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

; Adds a phase. in: EBX phase, EBP plan row; clobbers: EAX, ECX, EDX, ESI, EDI
code_phase:
    mov ecx, dword ptr [ebx + Phase.status]
    imul eax, ecx, CODE_DECODES
    cmp ecx, PhaseStatus.RUNNING
    jbe code_symbol
    add eax, dword ptr [ebx + Phase.decode]
    call code_symbol
    cmp ecx, PhaseStatus.NO_STORAGE
    je .return
    cmp ecx, PhaseStatus.ABSENT
    je .return
    ; which kinds of violations there are
    xor eax, eax
    xor ecx, ecx
.kind:
    mov edx, dword ptr [ebx + 8 * ecx + Phase.lost]
    or edx, dword ptr [ebx + 8 * ecx + Phase.lost + 4]
    jz .none
    bts eax, ecx
.none:
    inc ecx
    cmp ecx, {{ kinds }}
    jb .kind
    mov edi, eax
    mov edx, dword ptr [ebx + Phase.rounds]
    xor edx, dword ptr [ebp + Plan.rounds]
    or edx, dword ptr [ebx + Phase.rounds + 4]
    jnz .other
    or eax, CODE_AS_PLANNED
    call code_symbol
    jmp .judged
.other:
    call code_symbol
    lea ecx, [ebx + Phase.rounds]
    call code_quad
.judged:
    cmp dword ptr [ebp + Plan.prepare], 0
    je .events
    lea ecx, [ebx + Phase.judged]
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
    cmp dword ptr [ebp + Plan.role], Role.CASE
    je code_counters
.return:
    ret

; Adds the case's counters. in: EBX phase, EBP plan row; clobbers: EAX, ECX, EDX, ESI, EDI
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
    ("0xFF", "ebx + Phase.cpu + Counters.SIZE + Counters.takes"),
    ("CODE_REST", "code_rest"),
    ("CODE_FOREIGN", "ebx + Phase.foreign"),
    ("CODE_LEFT", "ebx + Phase.left"),
) %}
{% if flag != "0xFF" %}
    test edi, {{ flag }}
    jz .without{{ loop.index }}
{% endif %}
    lea ecx, [{{ place }}]
    call code_quad
.without{{ loop.index }}:
{% endfor %}
    ret
