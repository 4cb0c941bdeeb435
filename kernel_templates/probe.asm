; What kind of memory backs the cells? All CPUs but the BSP are waiting while these run.

; Do the cells hold what is written to them?
; in: EBP plan row, the handshake's address; out: CF set if not; the cells are 0 afterwards
; clobbers: EAX, ECX, EDX, ESI, EDI
probe_storage:
    mov edx, 0xA55AC33C
    mov ecx, 1
    call .pass
    jc .return
    mov edx, 0x5AA53CC3
    call .pass
    jc .return
    xor edx, edx
    xor ecx, ecx
    call .pass
.return:
    ret
; writes EDX + ECX * index to each cell, then reads all back
.pass:
    call .first
.write:
    mov eax, edx
    call dword ptr [results + Results.handshake + Handshake.task + Task.store]
    add edx, ecx
    call .next
    jb .write
    mov eax, ecx
    imul eax, esi
    sub edx, eax
    call .first
.read:
    push edx
    and edx, dword ptr [results + Results.handshake + Handshake.task + Task.cell_mask]
    ; twice: a register that reading clears holds nothing
    call dword ptr [results + Results.handshake + Handshake.task + Task.load]
    sub eax, edx
    jnz .differs
    call dword ptr [results + Results.handshake + Handshake.task + Task.load]
    sub eax, edx
.differs:
    pop edx
    jnz .bad
    add edx, ecx
    call .next
    jb .read
    clc
    ret
.bad:
    stc
    ret
.first:
    xor esi, esi
    mov edi, dword ptr [results + Results.handshake + Handshake.address]
    ret
.next:
    add edi, dword ptr [results + Results.handshake + Handshake.task + Task.stride]
    inc esi
    cmp esi, dword ptr [ebp + Plan.cells]
    ret

; Does VGA decode there? Its memory map is moved away (graphics controller register 6) and back: memory that the
; adapter serves disappears meanwhile, RAM stays.
; in: EBP plan row, the handshake's address; out: EAX Decode; the cell is 0 afterwards; clobbers: ECX, EDX, EDI
probe_vga:
    mov edi, dword ptr [results + Results.handshake + Handshake.address]
    mov eax, dword ptr [ebp + Plan.vga]

; The same for any address. in: EDI, AL the register's value that moves the map away from it; otherwise as above
vga_decodes:
    push ebx
    mov bh, al
    mov dword ptr [edi], 0x4B47454E
    mov dx, 0x3CE
    mov al, 6
    out dx, al
    inc edx
    in al, dx
    mov bl, al
    mov al, bh
    out dx, al
    mov ecx, dword ptr [edi]
    mov al, bl
    out dx, al
    mov eax, Decode.UNKNOWN
    ; whatever it was, the pattern must be back now
    cmp dword ptr [edi], 0x4B47454E
    jne .done
    mov eax, Decode.IO
    cmp ecx, 0x4B47454E
    jne .done
    mov eax, Decode.RAM
.done:
    mov dword ptr [edi], 0
    pop ebx
    ret

; How long does a read take? in: the handshake's address; out: EAX TSC ticks, the mean of 64
; clobbers: ECX, EDX, ESI, EDI
probe_latency:
    mov edi, dword ptr [results + Results.handshake + Handshake.address]
    rdtsc
    mov esi, eax
    mov ecx, 64
.read:
    call dword ptr [results + Results.handshake + Handshake.task + Task.load]
    dec ecx
    jnz .read
    rdtsc
    sub eax, esi
    shr eax, 6
    ret
