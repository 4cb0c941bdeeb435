; The parity experiment: of each cell two CPUs take one turn each, with an operation that undoes itself.
{% from "macros.asm" import witness %}

; The start value and what one operation makes of it. in: ESI cell; out: EAX points to both; clobbers: nothing
parity_entry:
    mov eax, dword ptr [results + Results.handshake + Handshake.batch]
    add eax, esi
    and eax, PARITY_STARTS - 1
    shl eax, 3
    add eax, dword ptr [results + Results.handshake + Handshake.task + Task.data]
    ret

; in: EBP plan row; clobbers: EAX, ECX, EDX, ESI, EDI
parity_prepare:
    xor esi, esi
    mov edi, dword ptr [results + Results.handshake + Handshake.address]
.cell:
    call parity_entry
    mov eax, dword ptr [eax]
    call dword ptr [results + Results.handshake + Handshake.task + Task.store]
    add edi, dword ptr [results + Results.handshake + Handshake.task + Task.stride]
    inc esi
    cmp esi, dword ptr [results + Results.handshake + Handshake.cells]
    jb .cell
    ret

; Both change it so many times: once, so that no loss can hide behind another, up to eight times, which meet more often.
; Where all take part, cell i of batch b is for CPUs i + b and i + b + 1, modulo their number. in: EBX this CPU's entry, ECX cell, EDI its address
; clobbers: EAX, EDX, EBP, ESI
parity_visit:
    cmp dword ptr [walkers], 2
    je .two
    call cpu_index
    mov esi, eax
    mov eax, ecx
    add eax, dword ptr [results + Results.handshake + Handshake.batch]
    xor edx, edx
    mov ebp, CPUS_NEEDED
    div ebp
    ; EDX is one of the two, the next one the other
    lea eax, [edx + 1]
    cmp eax, CPUS_NEEDED
    jb .pair
    xor eax, eax
.pair:
    cmp esi, edx
    je .turn
    cmp esi, eax
    jne .return
    mov eax, edx
.turn:
    imul edx, eax, Cpu.SIZE
    add edx, results + Results.cpu
    call keep_with
    jmp .begin
.two:
    call keep_together
.begin:
    mov eax, ecx
    mov ecx, dword ptr [results + Results.handshake + Handshake.batch]
    and ecx, 3
    mov esi, 1
    shl esi, cl
    mov ecx, eax
    mov eax, esi
    call count_operations
.change:
    mov eax, dword ptr [results + Results.handshake + Handshake.task + Task.operand]
    call dword ptr [results + Results.handshake + Handshake.task + Task.put]
    dec esi
    jnz .change
.return:
    ret

; in: EBX phase, EBP plan row; out: CF set if a cell did not stay as it was
; clobbers: EAX, ECX, EDX, ESI, EDI
parity_judge:
    call read_finals
    xor esi, esi
.look:
    call parity_entry
    mov eax, dword ptr [eax]
    cmp eax, dword ptr [finals + 4 * esi]
    jne .stay
    inc esi
    cmp esi, dword ptr [results + Results.handshake + Handshake.cells]
    jb .look
    jmp .good
.stay:
    call finals_stay
    jc .return
    xor esi, esi
.cell:
    call parity_entry
    mov edx, dword ptr [eax + 4]
    mov eax, dword ptr [eax]
    mov edi, dword ptr [finals + 4 * esi]
    cmp eax, edi
    je .next
    cmp edx, edi
    jne .torn
{{ witness("LOST", "eax", "edi", "NO_CPU") }}
    jmp .next
.torn:
{{ witness("TORN", "eax", "edi", "NO_CPU") }}
.next:
    inc esi
    cmp esi, dword ptr [results + Results.handshake + Handshake.cells]
    jb .cell
.good:
    call take_notes
    clc
.return:
    ret
