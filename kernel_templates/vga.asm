; VGA text mode 3, programmed register by register: qboot leaves the adapter in reset, UEFI in a graphics mode.
; Values: the standard mode 3 parameter table (IBM VGA Technical Reference).

; clobbers: EAX, ECX, EDX, ESI
vga_text_mode:
    ; While the Bochs VBE extension is on, writes to the sequencer are shadowed: index 4 (ENABLE) = 0 first.
    mov dx, 0x1CE
    mov ax, 4
    out dx, ax
    mov dx, 0x1CF
    xor eax, eax
    out dx, ax
    ; miscellaneous output: colour addresses, memory enabled, 28 MHz clock
    mov dx, 0x3C2
    mov al, 0x67
    out dx, al
    mov esi, vga_sequencer
    mov ecx, 5
    mov dx, 0x3C4
    call .indexed
    ; the CRT controller's registers 0 to 7 are behind bit 7 of register 11h
    mov dx, 0x3D4
    mov ax, 0x0E11
    out dx, ax
    mov esi, vga_crtc
    mov ecx, 25
    call .indexed
    mov esi, vga_graphics
    mov ecx, 9
    mov dx, 0x3CE
    call .indexed
    ; the attribute controller takes index and value through one port, reading 3DAh resets which comes next
    mov dx, 0x3DA
    in al, dx
    mov esi, vga_attribute
    xor ecx, ecx
    mov dx, 0x3C0
.attribute:
    mov al, cl
    out dx, al
    lodsb
    out dx, al
    inc ecx
    cmp ecx, 21
    jb .attribute
    mov al, 0x20
    out dx, al
    ; pixel mask
    mov dx, 0x3C6
    mov al, 0xFF
    out dx, al
    ret
; in: ESI values, ECX how many, DX index port; clobbers: EAX, ECX, ESI
.indexed:
    push ebx
    xor ebx, ebx
.next:
    lodsb
    mov ah, al
    mov al, bl
    out dx, ax
    inc ebx
    dec ecx
    jnz .next
    pop ebx
    ret
