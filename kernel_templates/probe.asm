; What kind of memory stands behind the cells? All CPUs but the BSP are waiting while these run.

; Do the cells hold what is written to them?
; in: EDI first cell, ECX cells; out: CF set if not; the cells are 0 afterwards; clobbers: EAX, EDX, ESI
probe_storage:
    mov edx, 0xA55AC33C
    call .pass
    jc .return
    mov edx, 0x5AA53CC3
    call .pass
    jc .return
    xor esi, esi
.clear:
    mov dword ptr [edi + 4 * esi], 0
    inc esi
    cmp esi, ecx
    jb .clear
    xor esi, esi
.verify:
    cmp dword ptr [edi + 4 * esi], 0
    jne .bad
    inc esi
    cmp esi, ecx
    jb .verify
    clc
.return:
    ret
; writes EDX + index to each cell, then reads all back
.pass:
    xor esi, esi
.write:
    lea eax, [edx + esi]
    mov dword ptr [edi + 4 * esi], eax
    inc esi
    cmp esi, ecx
    jb .write
    xor esi, esi
.read:
    lea eax, [edx + esi]
    cmp eax, dword ptr [edi + 4 * esi]
    jne .bad
    inc esi
    cmp esi, ecx
    jb .read
    clc
    ret
.bad:
    stc
    ret

; Does VGA decode there? Its memory map is moved to 0xa0000 (graphics controller register 6) and back: memory that
; the adapter serves disappears meanwhile, RAM stays.
; in: EDI cell; out: EAX Decode; the cell is 0 afterwards; clobbers: ECX, EDX
probe_vga:
    push ebx
    mov dword ptr [edi], 0x4B47454E
    mov dx, 0x3CE
    mov al, 6
    out dx, al
    inc edx
    in al, dx
    mov bl, al
    mov al, 0x05
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

; How long does a read take? in: EDI cell; out: EAX TSC ticks, the mean of 64; clobbers: ECX, EDX, ESI
probe_latency:
    rdtsc
    mov esi, eax
    mov ecx, 64
.read:
    mov eax, dword ptr [edi]
    dec ecx
    jnz .read
    rdtsc
    sub eax, esi
    shr eax, 6
    ret
