; The own-bits experiment: each CPU changes its own bits of a cell and sees whether they stay.
{% from "macros.asm" import witness %}
; A CPU's row of the phase's table: routine, operand, mask, repeats, and what its bits hold at first and after each change.
.equ OwnBits.routine, 0
.equ OwnBits.operand, 4
.equ OwnBits.mask, 8
.equ OwnBits.repeats, 0xC
.equ OwnBits.values, 0x10
.equ OwnBits.SIZE, 0x20

; in: EBP plan row; clobbers: EAX, ECX, EDX, ESI, EDI
own_bits_prepare:
    mov ecx, CPUS_NEEDED * MAX_BATCH
    mov edi, owners
    xor eax, eax
    rep stosb
    mov eax, dword ptr [results + Results.handshake + Handshake.task + Task.operand]
    jmp fill_cells

; in: EBX this CPU's entry, ECX cell, EDI its address; clobbers: EAX, EDX, EBP, ESI
own_bits_visit:
    call cpu_index
    imul ebp, eax, OwnBits.SIZE
    add ebp, dword ptr [results + Results.handshake + Handshake.task + Task.data]
    push 0
.change:
    mov eax, dword ptr [ebp + OwnBits.operand]
    mov esi, dword ptr [ebp + OwnBits.routine]
    call operate
    mov eax, 1
    call count_operations
    mov esi, dword ptr [esp]
    inc dword ptr [esp]
    ; bits that are set already and set again change nothing
    mov eax, dword ptr [ebp + 4 * esi + OwnBits.values]
    inc esi
    cmp eax, dword ptr [ebp + 4 * esi + OwnBits.values]
    jne .changed
    call shows_nothing
.changed:
    call dword ptr [results + Results.handshake + Handshake.task + Task.load]
    and eax, dword ptr [ebp + OwnBits.mask]
    cmp eax, dword ptr [ebp + 4 * esi + OwnBits.values]
    jne .undone
    cmp esi, dword ptr [ebp + OwnBits.repeats]
    jb .change
    pop eax
    ret
.undone:
    push NO_CPU
    push eax
    push dword ptr [ebp + 4 * esi + OwnBits.values]
    push ViolationKind.LOST
    call note
    ; nothing more is expected of these bits of this cell
    call cpu_index
    imul eax, eax, MAX_BATCH
    mov byte ptr [owners + eax + ecx], 1
    pop eax
    ret

; in: EBX phase, EBP plan row; out: CF set if a cell did not stay as it was
; clobbers: EAX, ECX, EDX, ESI, EDI
own_bits_judge:
    call read_finals
    mov dword ptr [own_bits_report], 0
    call .all
    jnc .good
    call finals_stay
    jc .return
    mov dword ptr [own_bits_report], 1
    call .all
.good:
    call take_notes
    clc
.return:
    ret
; Goes over all cells and CPUs; reports what is wrong if the caller asks for it. out: CF set if something is
.all:
    push ebp
    xor esi, esi
    mov dword ptr [own_bits_wrong], 0
.cell:
    xor ecx, ecx
    mov ebp, dword ptr [results + Results.handshake + Handshake.task + Task.data]
    ; the bits that belong to a CPU
    xor edi, edi
.cpu:
    or edi, dword ptr [ebp + OwnBits.mask]
    imul eax, ecx, MAX_BATCH
    cmp byte ptr [owners + eax + esi], 0
    jne .next
    ; who took no part has left its bits as they were
    xor edx, edx
    imul eax, ecx, Cpu.SIZE
    mov eax, dword ptr [results + Results.cpu + eax + Cpu.walks]
    cmp eax, dword ptr [results + Results.handshake + Handshake.batch]
    jne .expected
    mov edx, dword ptr [ebp + OwnBits.repeats]
.expected:
    mov edx, dword ptr [ebp + 4 * edx + OwnBits.values]
    mov eax, dword ptr [finals + 4 * esi]
    and eax, dword ptr [ebp + OwnBits.mask]
    cmp eax, edx
    je .next
    mov dword ptr [own_bits_wrong], 1
    cmp dword ptr [own_bits_report], 0
    je .next
    push ecx
    push edi
    mov edi, eax
{{ witness("LOST", "edx", "edi", "ecx") }}
    pop edi
    pop ecx
.next:
    add ebp, OwnBits.SIZE
    inc ecx
    cmp ecx, CPUS_NEEDED
    jb .cpu
    not edi
    and edi, dword ptr [results + Results.handshake + Handshake.task + Task.cell_mask]
    and edi, dword ptr [finals + 4 * esi]
    jz .whole
    mov dword ptr [own_bits_wrong], 1
    cmp dword ptr [own_bits_report], 0
    je .whole
{{ witness("TORN", 0, "edi", "NO_CPU") }}
.whole:
    inc esi
    cmp esi, dword ptr [results + Results.handshake + Handshake.cells]
    jb .cell
    pop ebp
    cmp dword ptr [own_bits_wrong], 1
    cmc
    ret
