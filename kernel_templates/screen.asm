; The screen: everything that is printed, as lines in memory of which the last ones are drawn.
;
; Nothing is ever read from video memory or moved within it: drawing writes what differs from what was drawn before, and
; only now and then, because on a virtual machine each access may be an exit. Nothing is drawn while the cells lie where the
; text would; then the lines wait.

; Empties the lines. clobbers: EAX, ECX, EDI
screen_clear:
    mov eax, 0x20202020
    mov edi, screen_ring
    mov ecx, SCREEN_ROWS * SCREEN_COLUMNS / 4
    rep stosd
    mov dword ptr [screen_first], 0
    mov dword ptr [screen_last], 0
    mov dword ptr [screen_column], 0
    ret

; Takes one character; LF ends a line, HT goes on to the next column that 8 divides. in: AL; clobbers: nothing
screen_put:
    push ecx
    push edx
    mov ecx, dword ptr [screen_column]
    cmp al, 10
    je .end
    ; only what follows makes a new line of a line that has ended or is full
    cmp ecx, SCREEN_COLUMNS
    jb .place
    call .advance
    xor ecx, ecx
.place:
    cmp al, 9
    je .tab
    imul edx, dword ptr [screen_last], SCREEN_COLUMNS
    mov byte ptr [screen_ring + edx + ecx], al
    inc ecx
    jmp .done
.tab:
    or ecx, 7
    inc ecx
    jmp .done
.end:
    mov ecx, SCREEN_COLUMNS
.done:
    mov dword ptr [screen_column], ecx
    mov byte ptr [screen_dirty], 1
    pop edx
    pop ecx
    ret
; the next line, which is empty; when all are used the oldest one goes. clobbers: ECX, EDX
.advance:
    mov edx, dword ptr [screen_last]
    call .following
    mov dword ptr [screen_last], edx
    cmp edx, dword ptr [screen_first]
    jne .blank
    push edx
    call .following
    mov dword ptr [screen_first], edx
    pop edx
.blank:
    push eax
    push edi
    imul edi, edx, SCREEN_COLUMNS
    add edi, screen_ring
    mov eax, 0x20202020
    mov ecx, SCREEN_COLUMNS / 4
    rep stosd
    pop edi
    pop eax
    ret
.following:
    inc edx
    cmp edx, SCREEN_ROWS
    jb .inside
    xor edx, edx
.inside:
    ret

; Draws if there is anything new and the time has come: some times a second, and where drawing takes long so seldom that it
; costs one part in SCREEN_SHARE of the time. clobbers: nothing
screen_poll:
    cmp byte ptr [screen_live], 0
    je .return
    cmp byte ptr [screen_dirty], 0
    je .return
    push eax
    push ebx
    push ecx
    push edx
    mov ebx, screen_deadline
    call check_deadline
    jc .early
    rdtsc
    push eax
    call screen_show
    rdtsc
    pop ecx
    sub eax, ecx
    mov ecx, SCREEN_SHARE
    mul ecx
    push edx
    push eax
    mov eax, SCREEN_MS
    mul dword ptr [results + Results.ticks_per_ms]
    cmp eax, dword ptr [esp]
    mov ecx, edx
    sbb ecx, dword ptr [esp + 4]
    jae .longer
    mov eax, dword ptr [esp]
    mov edx, dword ptr [esp + 4]
.longer:
    add esp, 8
    mov ebx, eax
    mov ecx, edx
    rdtsc
    add eax, ebx
    adc edx, ecx
    mov dword ptr [screen_deadline], eax
    mov dword ptr [screen_deadline + 4], edx
.early:
    pop edx
    pop ecx
    pop ebx
    pop eax
.return:
    ret

; Draws what is new, before something that may take long. clobbers: nothing
screen_show:
    cmp byte ptr [screen_live], 0
    je screen_poll.return
    push eax
    push ebx
    push ecx
    push edx
    push esi
    push edi
    push ebp
    mov byte ptr [screen_dirty], 0
    mov byte ptr [screen_busy], 1
    mov ebx, dword ptr [screen_first]
    xor ebp, ebp
.row:
    imul esi, ebx, SCREEN_COLUMNS
    add esi, screen_ring
    imul edi, ebp, SCREEN_COLUMNS
    add edi, screen_shown
    xor ecx, ecx
.four:
    mov eax, dword ptr [esi + ecx]
    cmp eax, dword ptr [edi + ecx]
    je .same
{% for pair in (0, 2) %}
    mov ax, word ptr [esi + ecx]
    cmp ax, word ptr [edi + ecx]
    je .skip{{ pair }}
    mov word ptr [edi + ecx], ax
    call dword ptr [screen_draw]
.skip{{ pair }}:
    add ecx, 2
{% endfor %}
    jmp .next
.same:
    add ecx, 4
.next:
    cmp ecx, dword ptr [screen_columns]
    jb .four
    inc ebx
    cmp ebx, SCREEN_ROWS
    jb .inside
    xor ebx, ebx
.inside:
    inc ebp
    cmp ebp, SCREEN_ROWS
    jb .row
    mov byte ptr [screen_busy], 0
    pop ebp
    pop edi
    pop esi
    pop edx
    pop ecx
    pop ebx
    pop eax
    ret

; How two characters are drawn, by what draws them.
; in: AX the characters, EBP row, ECX column, screen_base and screen_pitch; clobbers: EAX, EDX

; Text mode: a byte for the character, one for its colours.
draw_text:
    mov edx, ebp
    imul edx, dword ptr [screen_pitch]
    add edx, dword ptr [screen_base]
    push ecx
    lea edx, [edx + 2 * ecx]
    movzx ecx, ah
    shl ecx, 16
    movzx eax, al
    lea eax, [eax + ecx + 0x07000700]
    mov dword ptr [edx], eax
    pop ecx
    ret

; Graphics: each by its glyph.
{% macro drawn(name, columns, line) %}
{{ name }}:
    push esi
    push edi
    push ebx
    mov edi, ebp
    imul edi, dword ptr [screen_pitch]
    add edi, dword ptr [screen_base]
    imul edx, ecx, {{ columns }}
    add edi, edx
    movzx ebx, ah
    movzx eax, al
    call .glyph
    lea edi, [edi + {{ columns }}]
    mov eax, ebx
    call .glyph
    pop ebx
    pop edi
    pop esi
    ret
; in: EAX character, EDI where; clobbers: EAX, EDX, ESI
.glyph:
    push edi
    sub eax, FONT_FIRST
    cmp eax, FONT_LAST - FONT_FIRST
    jbe .known
    xor eax, eax
.known:
    lea esi, [font + 8 * eax]
    mov edx, FONT_HEIGHT
.line:
    mov al, byte ptr [esi]
{{ line }}
    ; each row of the glyph is two lines
    dec edx
    test edx, 1
    jnz .again
    inc esi
.again:
    test edx, edx
    jnz .line
    pop edi
    ret
{% endmacro %}
; a framebuffer of 32 bits a pixel
{% set pixels %}
    push ecx
    push edi
    mov ecx, 8
.pixel:
    add al, al
    push eax
    sbb eax, eax
    and eax, 0xAAAAAA
    mov dword ptr [edi], eax
    pop eax
    add edi, 4
    dec ecx
    jnz .pixel
    pop edi
    pop ecx
    add edi, dword ptr [handover + Handover.pitch]
{% endset %}
{{ drawn("draw_pixels", 32, pixels) }}
; four planes, all of which take what is written: a byte is eight dots in white
{% set planes %}
    mov byte ptr [edi], al
    add edi, 80
{% endset %}
{{ drawn("draw_planes", 1, planes) }}

; Is there anything to draw on? VGA text where VGA decodes, otherwise the framebuffer that UEFI left.
; out: Results.screen; clobbers: EAX, ECX, EDX, EBP, ESI, EDI
screen_init:
    mov dword ptr [screen_columns], SCREEN_COLUMNS
    mov edi, 0xB8000
    mov eax, SCREEN_VGA_AWAY
    call vga_decodes
    cmp eax, Decode.IO
    jne .no_text
    call vga_palette
    mov dword ptr [results + Results.screen], Screen.TEXT
    mov ebp, plan
    xor eax, eax
    jmp screen_claim
.no_text:
    mov esi, dword ptr [handover + Handover.framebuffer]
    test esi, esi
    jz .none
    ; as many columns as fit; what does not is cut off
    mov ecx, dword ptr [handover + Handover.width]
    shr ecx, 3
    and ecx, 0xFFFFFFFC
    jz .none
    cmp ecx, SCREEN_COLUMNS
    jbe .narrow
    mov ecx, SCREEN_COLUMNS
.narrow:
    mov dword ptr [screen_columns], ecx
    mov eax, dword ptr [handover + Handover.pitch]
    imul eax, eax, FONT_HEIGHT
    mov dword ptr [screen_pitch], eax
    ; the first lines are left to cells where there is room for that
    mov edx, dword ptr [handover + Handover.height]
    cmp edx, (SCREEN_TOP + SCREEN_ROWS) * FONT_HEIGHT
    jae .high
    cmp edx, SCREEN_ROWS * FONT_HEIGHT
    jb .none
    jmp .placed
.high:
    imul eax, eax, SCREEN_TOP
    add esi, eax
.placed:
    mov dword ptr [screen_base], esi
    mov dword ptr [screen_draw], draw_pixels
    mov dword ptr [results + Results.screen], Screen.FRAMEBUFFER
    ; black, from the top to where the text ends
    imul ecx, dword ptr [screen_pitch], SCREEN_ROWS
    add ecx, esi
    mov edi, dword ptr [handover + Handover.framebuffer]
    sub ecx, edi
    shr ecx, 2
    xor eax, eax
    rep stosd
    mov byte ptr [screen_live], 1
    jmp screen_blank
.none:
    ret

; All that is shown are blanks. clobbers: EAX, ECX, EDI
screen_blank:
    mov eax, 0x20202020
    jmp screen_showing

; Nothing is known of what is shown: all of it will be drawn. clobbers: EAX, ECX, EDI
screen_forget:
    xor eax, eax

; in: EAX what is shown everywhere, four characters; clobbers: ECX, EDI
screen_showing:
    mov edi, screen_shown
    mov ecx, SCREEN_ROWS * SCREEN_COLUMNS / 4
    rep stosd
    mov byte ptr [screen_dirty], 1
    ret

; Decides whether and where to draw during a phase: where no cell lies. Text memory has several pages, of which one is
; shown; the first one that is free is taken. Where a target may be the adapter's memory at another address (Plan.video)
; nothing is drawn before the end, and then far from where the cells begin.
; in: EBP plan row, EDI the first cell's address, EAX 0 where there are no cells, screen_only not 0 at the end
; clobbers: EAX, ECX, EDX, ESI, EDI
screen_claim:
    mov byte ptr [screen_live], 0
    test eax, eax
    jz .cells
    mov eax, dword ptr [ebp + Plan.cells]
.cells:
    mov dword ptr [screen_cells], eax
    cmp dword ptr [results + Results.screen], Screen.TEXT
    je .vga
    cmp dword ptr [results + Results.screen], Screen.FRAMEBUFFER
    jne .return
    mov esi, dword ptr [screen_base]
    imul edx, dword ptr [screen_pitch], SCREEN_ROWS
    add edx, esi
    call screen_overlaps
    jnc .live
.return:
    ret
.vga:
    cmp dword ptr [vga_current], vga_text
    je .text
    cmp byte ptr [screen_only], 0
    je .return
    ; at the end: back to text mode, unless that took the adapter's memory from the cells
    cmp dword ptr [ebp + Plan.video], 0
    jne .graphics
    mov esi, 0xA0000
    mov edx, 0xC0000
    call screen_overlaps
    jc .graphics
    mov esi, vga_text
    call vga_mode
.text:
    mov dword ptr [screen_draw], draw_text
    mov dword ptr [screen_pitch], 2 * SCREEN_COLUMNS
    xor ecx, ecx
    cmp dword ptr [screen_cells], 0
    je .page
    cmp dword ptr [ebp + Plan.video], 0
    je .page
    ; what is shown, and the font, will not be what we put there
    mov dword ptr [screen_page], NO_PAGE
    mov byte ptr [screen_stale], 1
    cmp byte ptr [screen_only], 0
    je .return
    ; the font begins 4 KiB from where the memory does
    mov eax, dword ptr [screen_cells]
    imul eax, dword ptr [ebp + Plan.task + Task.stride]
    cmp eax, 4096
    ja .return
    mov ecx, SCREEN_PAGES - 1
.page:
    mov esi, ecx
    shl esi, 12
    add esi, 0xB8000 + 2 * SCREEN_COLUMNS * SCREEN_TOP
    lea edx, [esi + 2 * SCREEN_COLUMNS * SCREEN_ROWS]
    call screen_overlaps
    jnc .free
    inc ecx
    cmp ecx, SCREEN_PAGES
    jb .page
    ret
.free:
    mov dword ptr [screen_base], esi
    cmp ecx, dword ptr [screen_page]
    je .live
    mov dword ptr [screen_page], ecx
    cmp byte ptr [screen_stale], 0
    je .font
    mov byte ptr [screen_stale], 0
    push ecx
    call vga_font
    pop ecx
.font:
    ; the CRT controller counts characters: 0Ch is the upper half of where the page begins, 0Dh the lower one
    mov eax, ecx
    shl eax, 11
    mov al, 0x0C
    mov dx, 0x3D4
    out dx, ax
    mov ax, 0x000D
    out dx, ax
    shl ecx, 12
    lea edi, [ecx + 0xB8000]
    mov eax, 0x07200720
    mov ecx, 25 * SCREEN_COLUMNS / 2
    rep stosd
    call screen_blank
.live:
    mov byte ptr [screen_live], 1
    ret
.graphics:
    ; drawing dots takes much longer than text: only the summary is drawn
    cmp dword ptr [vga_current], vga_planar
    jne .return
    mov esi, 0xA0000 + 80 * FONT_HEIGHT * SCREEN_TOP
    lea edx, [esi + 80 * FONT_HEIGHT * SCREEN_ROWS]
    call screen_overlaps
    jc .return
    mov dword ptr [screen_base], esi
    mov dword ptr [screen_pitch], 80 * FONT_HEIGHT
    mov dword ptr [screen_draw], draw_planes
    mov dword ptr [screen_page], NO_PAGE
    call screen_forget
    jmp .live

; Does a cell lie there? in: ESI begin, EDX end, EDI the first cell's address, EBP plan row, screen_cells how many
; out: CF set if so; clobbers: EAX
screen_overlaps:
    push ecx
    push edi
    mov ecx, dword ptr [screen_cells]
    jmp .more
.cell:
    cmp edi, edx
    jae .next
    lea eax, [edi + 8]
    cmp eax, esi
    ja .yes
.next:
    add edi, dword ptr [ebp + Plan.task + Task.stride]
    dec ecx
.more:
    test ecx, ecx
    jnz .cell
    pop edi
    pop ecx
    clc
    ret
.yes:
    pop edi
    pop ecx
    stc
    ret
