; VGA modes, programmed register by register: qboot leaves the adapter in reset, UEFI in a graphics mode. So it is with
; the colours and the font that the screen needs.

; in: ESI the mode's table: miscellaneous output, 5 sequencer, 25 CRT controller, 9 graphics controller and 21 attribute
; controller registers; clobbers: EAX, ECX, EDX, ESI
vga_mode:
    ; each change makes an emulator lay out its memory anew, which takes it longer than a phase may
    cmp esi, dword ptr [vga_current]
    je .set
    mov dword ptr [vga_current], esi
    ; whatever the screen showed is not what it shows now
    mov dword ptr [screen_page], NO_PAGE
    ; While the Bochs VBE extension is on, writes to the sequencer are shadowed: index 4 (ENABLE) = 0 first.
    mov dx, 0x1CE
    mov ax, 4
    out dx, ax
    mov dx, 0x1CF
    xor eax, eax
    out dx, ax
    ; A Cirrus adapter (one whose sequencer register 6 keeps 12h, which unlocks the others) has extended modes, in which
    ; UEFI leaves it, and banks in front of its memory (CL-GD5446 Technical Reference: SR6, SR7, GRB).
    mov dx, 0x3C4
    mov ax, 0x1206
    out dx, ax
    inc edx
    in al, dx
    cmp al, 0x12
    jne .plain
    dec edx
    mov ax, 0x0007
    out dx, ax
    mov dx, 0x3CE
    mov ax, 0x000B
    out dx, ax
.plain:
    mov dx, 0x3C2
    lodsb
    out dx, al
    mov ecx, 5
    mov dx, 0x3C4
    call .indexed
    ; the CRT controller's registers 0 to 7 are protected by bit 7 of register 11h
    mov dx, 0x3D4
    mov ax, 0x0E11
    out dx, ax
    mov ecx, 25
    call .indexed
    mov ecx, 9
    mov dx, 0x3CE
    call .indexed
    ; the attribute controller takes index and value through one port, reading 3DAh resets which comes next
    mov dx, 0x3DA
    in al, dx
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
    cmp dword ptr [vga_current], vga_text
    je vga_font
.set:
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

; Loads the font into plane 2, where text mode takes it from; each character has 32 bytes there, of which 16 are used. Each
; of our glyphs' rows is two lines. clobbers: EAX, ECX, EDX, ESI
vga_font:
    push edi
    mov esi, vga_font_open
    call .registers
    mov esi, font
    mov edi, 0xA0000 + 32 * FONT_FIRST
.glyph:
    mov ecx, 4
.rows:
    movzx eax, byte ptr [esi + 1]
    imul eax, eax, 0x1010000
    movzx edx, byte ptr [esi]
    imul edx, edx, 0x101
    or eax, edx
    mov dword ptr [edi], eax
    add esi, 2
    add edi, 4
    dec ecx
    jnz .rows
    add edi, 16
    cmp esi, font_end
    jb .glyph
    mov esi, vga_font_close
    call .registers
    pop edi
    ret
; in: ESI pairs of a port and a register's index and value, up to a port 0; clobbers: EAX, EDX, ESI
.registers:
    movzx edx, word ptr [esi]
    test edx, edx
    jz .done
    mov ax, word ptr [esi + 2]
    out dx, ax
    add esi, 4
    jmp .registers
.done:
    ret

; The 64 colours of the EGA, which text mode's attributes choose from: a bit for a third, a bit for two thirds of red,
; green and blue. clobbers: EAX, ECX, EDX, ESI
vga_palette:
    mov dx, 0x3C8
    xor eax, eax
    out dx, al
    inc edx
    xor ecx, ecx
.colour:
{% for bit in (2, 1, 0) %}
    mov eax, ecx
    shr eax, {{ bit }}
    and eax, 1
    imul eax, eax, 42
    mov esi, ecx
    shr esi, {{ bit + 3 }}
    and esi, 1
    imul esi, esi, 21
    add eax, esi
    out dx, al
{% endfor %}
    inc ecx
    cmp ecx, 64
    jb .colour
    ret

; Values: the parameter tables of the modes (IBM VGA Technical Reference).
{% macro mode(name, misc, sequencer, crtc, graphics, attribute) %}
{{ name }}:
    .byte {{ misc }}, {{ sequencer }}
    .byte {{ crtc }}
    .byte {{ graphics }}, {{ attribute }}
{% endmacro %}
.section .rodata, "a", 64
; plane 2 alone, one byte after the other, at 0xa0000; and back to what text mode has
vga_font_open:
    .word 0x3C4, 0x0402, 0x3C4, 0x0604, 0x3CE, 0x0005, 0x3CE, 0x0406, 0
vga_font_close:
    .word 0x3C4, 0x0302, 0x3C4, 0x0204, 0x3CE, 0x1005, 0x3CE, 0x0E06, 0
font:
{% for glyph in glyphs %}
    .byte {{ glyph | join(", ") }}
{% endfor %}
font_end:
; the cursor is off (bit 5 of the CRT controller's register 0Ah)
{{ mode("vga_text", "0x67", "0x03, 0x00, 0x03, 0x00, 0x02",
        "0x5F, 0x4F, 0x50, 0x82, 0x55, 0x81, 0xBF, 0x1F, 0x00, 0x4F, 0x2D, 0x0E, 0x00, 0x00, 0x00, 0x00, 0x9C, 0x0E, 0x8F, 0x28, 0x1F, 0x96, 0xB9, 0xA3, 0xFF",
        "0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0E, 0x00, 0xFF",
        "0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3A, 0x3B, 0x3C, 0x3D, 0x3E, 0x3F, 0x0C, 0x00, 0x0F, 0x08, 0x00") }}
; mode 12h: 640x480, four planes; the map mask writes all of them, the read map selects the first
{{ mode("vga_planar", "0xE3", "0x03, 0x01, 0x0F, 0x00, 0x06",
        "0x5F, 0x4F, 0x50, 0x82, 0x54, 0x80, 0x0B, 0x3E, 0x00, 0x40, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xEA, 0x8C, 0xDF, 0x28, 0x00, 0xE7, 0x04, 0xE3, 0xFF",
        "0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x05, 0x0F, 0xFF",
        "0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3A, 0x3B, 0x3C, 0x3D, 0x3E, 0x3F, 0x01, 0x00, 0x0F, 0x00, 0x00") }}
; mode 13h: 320x200, one byte a pixel, the planes chained
{{ mode("vga_chained", "0x63", "0x03, 0x01, 0x0F, 0x00, 0x0E",
        "0x5F, 0x4F, 0x50, 0x82, 0x54, 0x80, 0xBF, 0x1F, 0x00, 0x41, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x9C, 0x8E, 0x8F, 0x28, 0x40, 0x96, 0xB9, 0xA3, 0xFF",
        "0x00, 0x00, 0x00, 0x00, 0x00, 0x40, 0x05, 0x0F, 0xFF",
        "0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x0E, 0x0F, 0x41, 0x00, 0x0F, 0x00, 0x00") }}
.section .text, "ax"
.code32
